"""Words to print: common English ones of up to eight letters, and made-up ones.

The words of the validation and test sets are never drawn, nor asked for, in training.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from ops.nano.drawing.split import Split

COMMON = tuple(
    """
    able above acid across act add after again age agree air all almost alone along also always
    amount angle animal answer any apple april arch area argue arm army around art ash ask august
    aunt autumn away axis baby back bad bag bake ball band bank bar barn base basket bath beach bean
    bear beat bed bee before begin behind bell belt bench berry best better between big bird birth
    bite black blade blank blood blow blue board boat body boil bone book boot border both bottle
    bottom bowl box boy brain branch brave bread break brick bridge brief bright bring broad brother
    brown brush bucket build bulb burn bus bush busy butter button buy cabin cable cake call calm
    camel camera camp canal candle cap car carbon card care carpet carry cart case castle cat catch
    cattle cause cave cell centre century chain chair chalk chance change charge cheap check cheese
    cherry chest chief child choice circle city claim class clay clean clear clever cliff climb
    clock close cloth cloud club coach coal coast coat coffee coin cold collar colour comb come
    common cook cool copper copy cork corn corner cost cotton count country couple course court
    cover cow crack craft crane cream credit crew crime crop cross crowd crown cruel cry cup current
    curtain curve cushion cut cycle damage dance danger dark date day deal dear debt decade deep
    deer degree delay desert design desk detail dew diary diet dinner dirt dish distance divide
    doctor dog dollar door double doubt down dozen draft drain draw dream dress drink drive drop dry
    duck dust duty eager eagle ear early earth east easy echo edge effect egg eight elbow electric
    empty end enemy energy engine enjoy enough entry equal error escape even evening event ever
    every exact exit expert eye fabric face fact factory fair faith fall family famous far farm
    farmer fast father fear feast feather february feed feel fence fern field fifty fight figure
    film final find fine finger finish fire first fish flag flame flat flight float floor flour
    flow flower fly focus fog fold food foot forest fork form forty forward four fox frame free
    fresh friday friend frog front frost fruit full funny future game garage garden gas gate gather
    general gentle ghost giant gift give glad glass globe glove goal goat gold good goose grain
    grand grape grass gravity gray great green grey group grow guard guest guide guitar habit hair
    half hall hammer hand happy harbour hard harvest hat hawk head health heart heat heavy helmet
    help hen herb hero hill history hold hole holiday home honey hook hope horn horse hospital hot
    hotel hour house human humour hundred hunt hurry ice idea image inch insect inside island iron
    ivory jacket january jar jelly jewel join joke journey judge juice july jump june jungle jury
    keep kettle key kind king kitchen kite knee knife knot know label ladder lady lake lamb lamp
    land language large last late laugh laundry law lawn layer lead leaf learn leather left leg
    lemon lesson letter level library lift light lily limit line lion lip liquid list listen little
    live lizard load loaf lock log lonely long look loop lose loud love low lucky lunch machine
    magic main make male man many map marble march margin mark market mask mass master match meal
    measure meat medal melon member memory metal middle mile milk mill million mind minute mirror
    mist mix model modern moment monday money monkey month moon morning mother motor mountain mouse
    mouth move much mud museum music nail name narrow nation nature near neck needle nerve nest net
    never new news night nine noise noon north nose note nothing notice november number nurse nut
    oak ocean october offer office oil old olive one onion open orange orbit orchard order organ
    other owl owner oxygen pack page paint pair palace palm pan paper parcel parent park parrot part
    party pass past path patient pattern pause pay peace peach pear pearl pebble pen pencil people
    pepper perfect period phone photo piano picnic picture piece pig pilot pin pine pink pipe place
    plain plan planet plant plate play please plenty plough pocket poem poet point polite pond pony
    pool poor port post pot potato pound powder power praise present press pretty price prince print
    prison prize profit proof proud public pull pump purple push puzzle quality quarter queen
    question quick quiet quite rabbit race radio rail rain raise range rat raw reach read ready real
    reason record red region regular relief rent reply report rest result reward rhythm ribbon rice
    rich ride right ring ripe rise river road rock rocket roll roof room root rope rose rough round
    route row royal rubber rule run sad safe sail salad salt same sand saturday sauce save scale
    scene school science scissors score screen screw sea search season seat second secret see seed
    sell send sense serious servant seven shade shadow shake shape share sharp sheep sheet shelf
    shell shine ship shirt shock shoe shop shore short shoulder show shut sick side sign signal silk
    silver simple since sing sister six size skin skirt sky sleep slope slow small smart smell smile
    smoke smooth snail snake snow soap social sock soft soil soldier solid some son song soon sort
    sound soup south space spade spare special speed spell spend spider spiral spoon sport spot
    spring square stable stage stair stamp stand star start state station steam steel stem step
    stick still stitch stomach stone stop store storm story straight strange street strong student
    study sudden sugar summer sun sunday support sure surface sweet swim sword symbol system table
    tail tailor take talk tall tank taste tax tea teacher team tear ten tent test text thank theory
    thick thin thing think third thirty thread three throat thumb thunder thursday ticket tide tie
    tiger tight time tin tiny tired title toast today toe together tomato tongue tool tooth top
    total touch towel tower town toy track trade train travel tray tree triangle trick trip trouble
    trousers truck true trunk trust truth tuesday tunnel turkey turn turtle twelve twenty twist two
    umbrella uncle under unit upper urban useful usual valley value van vase verse very victory view
    village violin visit voice volcano volume vote wagon wait walk wall walnut want war warm wash
    waste watch water wave wax way weather week weight well west wet whale wheat wheel when whistle
    white whole wide wife wild will wind window wine wing winter wire wise wish wolf woman wonder
    wood wool word work world worm worth wound wrist write wrong yard year yellow young zebra zero
    """.split()
)
_SHARES: dict[Split, range] = {"train": range(90), "validation": range(90, 94), "test": range(94, 100)}
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"


@cache
def common(split: Split) -> tuple[str, ...]:
    """The words of one split; every word is of exactly one."""
    return tuple(word for word in COMMON if _hundredth(word) in _SHARES[split])


def made_up(rng: np.random.Generator, split: Split, length: int) -> str:
    """A word nobody knows, of one split: half of them can be spoken, half are any letters."""
    while True:
        if rng.random() < 0.5:
            start = rng.integers(2)
            word = "".join(
                _pick(rng, _VOWELS if (start + place) % 2 else _CONSONANTS)
                for place in range(length)
            )
        else:
            word = "".join(chr(ord("a") + int(rng.integers(26))) for _ in range(length))
        if _hundredth(word) in _SHARES[split]:
            return word


def _pick(rng: np.random.Generator, letters: str) -> str:
    return letters[int(rng.integers(len(letters)))]


def _hundredth(word: str) -> int:
    return hashlib.sha256(word.encode()).digest()[0] * 100 // 256
