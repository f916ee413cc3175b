"""Streaming text against mistral-common's own decode of the whole, with both tokenizer families."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.base import Tokenizer as RawTokenizer
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from shards.detokenizer import TextStream, Vocabulary
from shards.tokenizer import vocabulary_of

TEXTS = [
    "Hello, world",
    "  two spaces, a\ttab and\n\na blank line ",
    "naïve café, Straße, Ελλάδα, Русский, עברית, العربية",
    "中文字符 日本語テキスト 한국어 ไทย",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 👍🏽 emoji, joined",
    "e\u0301 combining \u0928\u093f, zalgo h̷̢̛e̶̗͝",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the first plane 🜁 𐍈",
    "null \x00 and \ufffd and \u2028",
    "",
]


@pytest.fixture(scope="module", params=["sentencepiece", "tekken"])
def raw(request) -> RawTokenizer:
    whole = (
        MistralTokenizer.v7(is_mm=True)
        if request.param == "sentencepiece"
        else MistralTokenizer.v3(is_tekken=True, is_mm=True)
    )
    return whole.instruct_tokenizer.tokenizer


@pytest.fixture(scope="module")
def vocabulary(raw) -> Vocabulary:
    return vocabulary_of(raw)


def in_pieces(stream: TextStream, ids: Sequence[int], rng: random.Random) -> str:
    """The whole text, pushed a random few tokens at a time."""
    text, at = "", 0
    while at < len(ids):
        step = rng.randint(1, 3)
        text += stream.push(ids[at : at + step])
        at += step
    return text + stream.finish()


@pytest.mark.parametrize("text", TEXTS)
def test_real_text_comes_back_whole(raw, vocabulary, text):
    ids = raw.encode(text, bos=False, eos=True)
    shown = in_pieces(TextStream(vocabulary), ids, random.Random(text))
    assert shown == text == raw.decode(ids)


def test_random_ids_decode_as_mistral_common_decodes_them(raw, vocabulary):
    rng = random.Random(7)
    for _ in range(1500):
        ids = [rng.randrange(1, len(vocabulary)) for _ in range(rng.randint(1, 24))]
        assert in_pieces(TextStream(vocabulary), ids, rng) == raw.decode(ids)


def test_random_bytes_spaces_and_controls_decode_as_mistral_common_decodes_them(raw, vocabulary):
    """Broken characters, byte-wise spaces, controls between the bytes of a character."""
    rng = random.Random(8)
    single = sorted(vocabulary.byte_ids) or [raw.num_special_tokens + byte for byte in range(256)]
    spaces = [i for i, piece in enumerate(vocabulary.pieces) if piece and not piece.strip(b" ")]
    emoji = [single[byte] for byte in "😀中é".encode()]
    pool = [*single[0x80:], *spaces, *emoji * 12, vocabulary.eos_id, vocabulary.tool_calls_id]
    for _ in range(3000):
        ids = rng.choices(pool, k=rng.randint(1, 10))
        at = rng.randrange(len(emoji))
        ids[rng.randrange(len(ids)) :] = emoji[:at]
        assert in_pieces(TextStream(vocabulary), ids, rng) == raw.decode(ids)


def test_unknown_is_structure_and_shows_nothing(vocabulary):
    assert TextStream(vocabulary).push([0]) == ""
    assert 0 in vocabulary.control_ids


def test_a_character_is_shown_once_it_is_whole(raw, vocabulary):
    single = sorted(vocabulary.byte_ids) or [raw.num_special_tokens + byte for byte in range(256)]
    stream = TextStream(vocabulary)
    shown = [stream.push([single[byte]]) for byte in "a😀".encode()]
    assert shown == ["a", "", "", "", "😀"]


def test_a_continued_text_keeps_its_first_space(raw, vocabulary):
    ids = raw.encode(" world", bos=False, eos=False)[-1:]
    expected = raw.decode([*raw.encode("Hello", bos=False, eos=False), *ids])
    assert "Hello" + TextStream(vocabulary, continues=True).push(ids) == expected


def test_a_vocabulary_crosses_process_borders(vocabulary):
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    assert len(repr(vocabulary)) < 200


def small_vocabulary() -> Vocabulary:
    """One token per ASCII character; 0 ends."""
    return Vocabulary(
        pieces=(b"", *(bytes([code]) for code in range(1, 128))),
        eos_id=0,
        control_ids=frozenset({0}),
        answer_ids=frozenset({0}),
        tool_calls_id=0,
        image_id=0,
        image_break_id=0,
        image_end_id=0,
        strip_leading_space=False,
    )


def test_text_before_a_stop_is_shown_and_nothing_after():
    stream = TextStream(small_vocabulary(), stop=["END"])
    shown = [stream.push([ord(letter)]) for letter in "ENdENDmore"]
    assert shown == ["", "", "ENd", "", "", "", "", "", "", ""]
    assert stream.finish() == ""
    assert stream.stopped == "END"


def test_a_held_beginning_of_a_stop_is_shown_at_the_end():
    stream = TextStream(small_vocabulary(), stop=["</s>"])
    assert stream.push(b"text </") == "text "
    assert stream.finish() == "</"
    assert stream.stopped is None


def test_the_stop_completed_first_wins_and_the_longest_of_those():
    first = TextStream(small_vocabulary(), stop=["abcd", "bc", "zbc"])
    assert (first.push(b"abcd"), first.stopped) == ("a", "bc")
    longest = TextStream(small_vocabulary(), stop=["c", "abc", "bc"])
    assert (longest.push(b"-abc"), longest.stopped) == ("-", "abc")


@settings(max_examples=150, deadline=None)
@given(
    text=st.text("ab\n", max_size=40),
    stop=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_stops_do_not_depend_on_how_tokens_are_bundled(text, stop, cuts):
    ends = [text.find(word) + len(word) for word in stop if word in text]
    stopping = [word for word in stop if ends and text[: min(ends)].endswith(word)]
    word = max(stopping, key=len, default=None)
    expected = text if word is None else text[: min(ends) - len(word)]

    stream, shown, at = TextStream(small_vocabulary(), stop), "", 0
    for cut in cuts:
        shown += stream.push(text[at : at + cut].encode())
        assert expected.startswith(shown)
        at += cut
    assert shown + stream.finish() == expected
    assert stream.stopped == word


def test_text_that_can_no_longer_become_a_stop_is_not_held():
    stream = TextStream(small_vocabulary(), stop=["aab"])
    assert [stream.push([ord(letter)]) for letter in "aaaac"] == ["", "", "a", "a", "aac"]
