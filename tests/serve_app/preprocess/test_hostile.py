"""Whatever comes, a worker answers with patches or a refusal: Pillow's own test pictures, and
thousands of damaged ones.

``PIXTRAL_SOAK=1`` throws 12,000 mutations instead of 1,500; what the last such run found is in
``serve_app/preprocess/README.md``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from serve_app.errors import InvalidRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.decode import decoded_frames, look_at_frames
from serve_app.preprocess.rules import format_of
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Wish
from serve_app.preprocess.workers import Workers
from serve_app.telemetry import WorkerMetrics
from shards.pixels import patches
from tests.serve_app.preprocess.pictures import encoded, noise
from tests.serve_app.preprocess.pillow_corpus import pillow_images
from tests.serve_app.preprocess.test_formats import EVERY

SOAK = os.environ.get("PIXTRAL_SOAK") == "1"
MUTATIONS = 12_000 if SOAK else 1_500
MEMORY = 512 * 2**20
# What a worker holds before it takes work, and the pages of shared memory that it has touched.
STANDING = 220 * 2**20
CONFIG = Preprocess(
    workers=2, formats=EVERY, worker_memory_bytes=MEMORY, max_picture_pixels=16_000_000
)
TURN = Turn("team", "request")
CODES = {
    "invalid_picture",
    "unsupported_picture",
    "picture_too_large",
    "picture_too_costly",
    "no_such_frame",
}


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    pool = Workers(CONFIG, WorkerMetrics())
    yield pool
    pool.close()


@pytest.fixture(scope="module", autouse=True)
def heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def worker_pids() -> set[int]:
    return {
        child.pid
        for child in psutil.Process().children()
        if any(part.endswith("preprocess/worker.py") for part in child.cmdline())
    }


def peak_bytes(pid: int) -> int:
    """Of memory that was really touched."""
    with open(f"/proc/{pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


async def tried(
    workers: Workers, data: bytes, wish: Wish = FIRST_FRAME
) -> np.ndarray | InvalidRequest:
    """Patches of what is shown first, or why there are none."""
    try:
        sight = await workers.look(data, wish, "place", TURN)
        sides = [1024] * len(sight.sizes)
        cut = await workers.cut(data, wish, sides, "place", TURN, np.copy)
    except InvalidRequest as error:
        return error
    assert len(cut) == len(sight.sizes)
    return cut[0].patches


def checked(found: np.ndarray | InvalidRequest) -> np.ndarray | InvalidRequest:
    if isinstance(found, InvalidRequest):
        assert found.code in CODES
        assert found.param == "place"
    return found


def unconfined(data: bytes) -> np.ndarray | InvalidRequest:
    try:
        sight = look_at_frames(data, FIRST_FRAME, CONFIG.rules, "place")
        image = next(decoded_frames(data, sight, CONFIG.rules, "place"))
    except InvalidRequest as error:
        return error
    return patches(image)[1]


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
async def test_confinement_changes_nothing_of_what_pillow_s_own_pictures_are(
    workers, record_property
):
    """Each is what it is without confinement, to the bit, or refused with the same words."""
    outcomes: Counter[str] = Counter()
    pids = worker_pids()
    for name, data in pillow_images().items():
        found = checked(await tried(workers, data))
        expected = unconfined(data)
        if isinstance(found, InvalidRequest):
            assert isinstance(expected, InvalidRequest), name
            assert found.message == expected.message, name
            outcomes[f"{found.code}"] += 1
        else:
            assert not isinstance(expected, InvalidRequest), name
            assert np.array_equal(found, expected), name
            outcomes[f"{format_of(data)} read"] += 1
    assert worker_pids() == pids, "a worker was lost"
    peaks = [peak_bytes(pid) for pid in pids]
    assert max(peaks) < MEMORY + STANDING
    assert sum(count for what, count in outcomes.items() if what.endswith("read")) > 400
    told = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    record_property(
        "told",
        f"Pillow's {sum(outcomes.values())} test files in confined workers: {told};"
        f" a worker's memory peaked at {max(peaks) // 2**20} MiB",
    )


def flipped(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 12)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def extreme(data: bytearray, rng: random.Random) -> None:
    """Sizes, counts and offsets at their ends."""
    width = rng.choice((1, 2, 4))
    at = rng.randrange(max(1, len(data) - width))
    value = rng.choice((0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), rng.getrandbits(8)))
    data[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))


def cut_short(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 64)]


def said_twice(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    piece = data[at : at + rng.randint(1, 256)]
    data[at:at] = piece * rng.randint(1, 40)


def filled(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    length = min(rng.randint(1, 512), len(data) - at)
    data[at : at + length] = bytes([rng.choice((0, 255, 65))]) * length


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flipped, extreme, extreme, cut_short),
    *(cut_out, said_twice, filled),
)


def seeds() -> list[bytes]:
    """Small files of every format, in many modes, from Pillow's tests and our own."""
    found = [
        data
        for data in pillow_images().values()
        if format_of(data) is not None and 64 < len(data) < 40_000
    ]
    found += [encoded(noise(40, 30), form.upper()) for form in EVERY]
    frames = [noise(20, 20), noise(20, 20, 4).convert("RGB"), noise(21, 20).resize((20, 20))]
    return found + [
        encoded(frames[0], form, save_all=True, append_images=frames[1:])
        for form in ("GIF", "WEBP", "TIFF")
    ]


def mutations(count: int) -> Iterator[bytes]:
    sources = seeds()
    for number in range(count):
        rng = random.Random(number)
        data = bytearray(rng.choice(sources))
        head = bytes(data[:4])
        for _ in range(rng.randint(1, 4)):
            if data:
                rng.choice(DAMAGE)(data, rng)
        if rng.random() < 0.8:
            # What is not told as a picture gets no further than that.
            data[: len(head)] = head
        yield bytes(data)


@pytest.mark.timeout(3600 if SOAK else 600)
async def test_damage_brings_a_picture_or_a_refusal_and_nothing_else(workers, record_property):
    outcomes: Counter[str] = Counter()
    before, seen = worker_pids(), set(worker_pids())
    queue = mutations(MUTATIONS)

    async def throw() -> None:
        for number, data in enumerate(queue):
            wish = Frames(count=3) if number % 5 == 0 else FIRST_FRAME
            found = checked(await tried(workers, data, wish))
            outcomes[found.code if isinstance(found, InvalidRequest) else "read"] += 1
            seen.update(worker_pids() if number % 50 == 0 else ())

    await asyncio.gather(*(throw() for _ in range(4)))
    after = worker_pids()
    assert sum(outcomes.values()) == MUTATIONS
    assert min(outcomes["read"], outcomes["invalid_picture"]) > MUTATIONS // 10
    peak = max(peak_bytes(pid) for pid in after)
    assert peak < MEMORY + STANDING
    told = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    record_property(
        "told",
        f"{MUTATIONS} damaged pictures: {told}; {len(seen | after) - len(before)} workers replaced,"
        f" memory peaked at {peak // 2**20} MiB",
    )
