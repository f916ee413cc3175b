"""Pictures through real worker processes, and workers that die, dawdle, swell or lie."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import pytest_asyncio
from PIL import Image

from serve_app.errors import InvalidRequest, Overloaded
from serve_app.preparing import Preprocess
from serve_app.preprocess.child import WorkerLost
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wish import FIRST_FRAME, Frames
from serve_app.preprocess.workers import CutPicture, Workers
from serve_app.telemetry import WorkerMetrics
from shards.pixels import patches
from tests.serve_app.preprocess.pictures import encoded, large_png, noise

ONE = Preprocess(workers=1)
TURN = Turn("team", "request")
PLACE = "messages[0].content[1]"
ROGUE = SimpleNamespace(__file__=str(Path(__file__).with_name("rogue_worker.py")))


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    pool = Workers(Preprocess(workers=2), WorkerMetrics())
    yield pool
    pool.close()


@pytest_asyncio.fixture
async def rogues(monkeypatch) -> AsyncIterator[Workers]:
    monkeypatch.setattr("serve_app.preprocess.child.worker", ROGUE)
    pool = Workers(Preprocess(workers=1, picture_timeout_s=2), WorkerMetrics())
    yield pool
    pool.close()


async def cut(
    workers: Workers, data: bytes, wish: Frames = FIRST_FRAME, sides: tuple[int, ...] = (1024,)
) -> tuple[CutPicture[np.ndarray], ...]:
    return await workers.cut(data, wish, sides, PLACE, TURN, np.copy)


async def refused(workers: Workers, data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await cut(workers, data)
    assert caught.value.param == PLACE
    return caught.value


def processes() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.is_running() and any("worker.py" in part for part in child.cmdline())
    ]


async def test_patches_come_back_bit_for_bit(workers):
    for image in (noise(640, 480), noise(1300, 200), noise(3, 2000)):
        data = encoded(image, "PNG")
        sight = await workers.look(data, FIRST_FRAME, PLACE, TURN)
        assert (sight.sizes, sight.numbers, sight.total) == ((image.size,), (0,), 1)
        [one] = await cut(workers, data)
        grid, values = patches(image)
        assert one.grid == grid
        assert np.array_equal(one.patches, values)


async def test_each_frame_is_cut_under_its_own_side(workers):
    frames = [noise(60, 40), noise(60, 40, 4).convert("RGB"), Image.new("RGB", (60, 40), "red")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    wish = Frames(indices=(2, 0))
    assert (await workers.look(data, wish, PLACE, TURN)).numbers == (2, 0)
    found = await cut(workers, data, wish, (1024, 20))
    for one, (frame, side) in zip(found, ((2, 1024), (0, 20)), strict=True):
        grid, values = patches(frames[frame], side)
        assert one.grid == grid
        assert np.array_equal(one.patches, values)


async def test_what_a_worker_refuses_names_the_place_and_costs_no_worker(workers):
    before = [process.pid for process in processes()]
    error = await refused(workers, b"no picture")
    assert error.message == "the picture is not a JPEG, PNG, WebP or GIF"
    assert error.code == "unsupported_picture"
    assert (await refused(workers, encoded(noise(), "PNG")[:-30])).code == "invalid_picture"
    assert [process.pid for process in processes()] == before


async def test_workers_inherit_nothing_and_are_confined(workers, tmp_path):
    secret = (tmp_path / "secret").open("w")
    os.set_inheritable(secret.fileno(), True)
    pool = Workers(ONE, WorkerMetrics())
    try:
        process = processes()[-1]
        kinds = sorted(os.readlink(fd.path) for fd in os.scandir(f"/proc/{process.pid}/fd"))
        assert [kind.partition(":")[0] for kind in kinds] == [
            *("/dev/null",) * 3,
            *("/memfd", "/memfd"),
            "socket",
        ]
        assert process.environ() == {}
        status = Path(f"/proc/{process.pid}/status").read_text()
        for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "Threads:\t1"):
            assert line in status
        assert os.getsid(process.pid) == process.pid
        limits = {
            name: process.rlimit(getattr(psutil, f"RLIMIT_{name}"))
            for name in ("FSIZE", "CORE", "NPROC", "NOFILE")
        }
        assert limits == {"FSIZE": (0, 0), "CORE": (0, 0), "NPROC": (0, 0), "NOFILE": (16, 16)}
        assert process.nice() > psutil.Process().nice()
    finally:
        pool.close()
        secret.close()


async def test_a_picture_that_takes_too_long_costs_its_worker_and_nobody_else(monkeypatch):
    monkeypatch.setattr("serve_app.preprocess.child.FAIR_SHARE", 0.0)
    pool = Workers(Preprocess(workers=2, picture_timeout_s=0.2), WorkerMetrics())
    try:
        error = await refused(pool, large_png(5900))
        assert error.code == "picture_too_costly"
        assert error.message == "the picture takes too much time to decode; at most 0.2 s are spent"
        assert len(await cut(pool, encoded(noise(), "JPEG"))) == 1
    finally:
        pool.close()


async def test_a_picture_that_takes_too_much_memory_costs_its_worker_and_nobody_else():
    pool = Workers(Preprocess(workers=1, worker_memory_bytes=2**26), WorkerMetrics())
    try:
        [before] = processes()[-1:]
        error = await refused(pool, large_png(5900))
        assert error.code == "picture_too_costly"
        assert error.message == "the picture takes too much memory to decode"
        assert len(await cut(pool, encoded(noise(), "JPEG"))) == 1
        assert not before.is_running()
    finally:
        pool.close()


async def test_a_worker_that_is_killed_costs_no_picture():
    pool = Workers(ONE, WorkerMetrics())
    try:
        doomed = processes()[-1]
        doomed.suspend()
        cutting = asyncio.create_task(cut(pool, large_png(2000)))
        await asyncio.sleep(0.2)
        doomed.send_signal(signal.SIGKILL)
        assert (await cutting)[0].grid.patches == 64 * 64
    finally:
        pool.close()


async def test_an_idle_worker_that_was_killed_is_replaced():
    pool = Workers(ONE, WorkerMetrics())
    try:
        processes()[-1].kill()
        assert len(await cut(pool, encoded(noise(), "JPEG"))) == 1
    finally:
        pool.close()


async def test_a_worker_is_replaced_after_its_tasks():
    pool = Workers(Preprocess(workers=1, worker_tasks=3), WorkerMetrics())
    try:
        data, pids = encoded(noise(), "PNG"), []
        for _ in range(4):
            await cut(pool, data)
            pids.append(processes()[-1].pid)
        assert pids[0] == pids[1] == pids[2] != pids[3]
    finally:
        pool.close()


async def test_a_file_that_kills_twice_is_refused(rogues):
    error = await refused(rogues, b"die")
    assert (error.message, error.code) == ("the picture cannot be decoded", "invalid_picture")


async def test_a_worker_that_never_ends_is_ended(rogues, monkeypatch):
    monkeypatch.setattr("serve_app.preprocess.child.FAIR_SHARE", 0.01)
    assert (await refused(rogues, b"spin")).code == "picture_too_costly"


async def test_a_file_is_not_blamed_where_its_worker_had_no_processor(rogues):
    """A sleeping one has none."""
    with pytest.raises(Overloaded, match="too busy"):
        await cut(rogues, b"sleep")


async def test_shared_memory_cannot_be_cut_short_under_the_parent(rogues):
    """It would kill the parent at its next look."""
    assert (await refused(rogues, b"shrink")).code == "invalid_picture"


def reply(kind: str, **fields: object) -> bytes:
    return json.dumps({kind: fields}).encode()


def sight(sizes: object, numbers: object = (0,), total: object = 1) -> bytes:
    return reply("Seen", sight={"sizes": sizes, "numbers": numbers, "total": total})


@pytest.mark.parametrize(
    "lie",
    [
        b"\x80\x04\x95 a pickle",
        b"[]",
        b"{}",
        b'{"Done": {}, "Ready": {}}',
        reply("Farewell"),
        reply("OneCut", grid={"rows": 65, "columns": 64}),
        reply("OneCut", grid={"rows": -1, "columns": -1}),
        reply("OneCut", grid={"rows": 1e3, "columns": 1}),
        reply("OneCut", grid={"rows": True, "columns": 1}),
        reply("Refused", message="see <a href='https://evil.example'>", code="invalid_picture"),
        reply("Refused", message="BytesIO object at 0x7f\n", code="invalid_picture"),
        reply("Refused", message="x" * 301, code="invalid_picture"),
        reply("Refused", message="fine", code="Not A Code"),
        reply("Refused", message=["fine"], code="invalid_picture"),
        reply("Done"),
        sight([[1, 1]]),
    ],
)
async def test_nothing_that_makes_no_sense_is_taken_from_a_worker(rogues, lie):
    error = await refused(rogues, lie)
    assert (error.message, error.code) == ("the picture cannot be decoded", "invalid_picture")


@pytest.mark.parametrize(
    "lie",
    [
        sight([[0, 5]]),
        sight([[5, 2**31 + 1]]),
        sight([[5, 5, 5]]),
        sight([]),
        sight([[5, 5]], [0, 1]),
        sight([[5, 5]], [-1]),
        sight([[5, 5]], total=0),
        sight([[1, 1]] * 5000, list(range(5000))),
        reply("OneCut", grid={"rows": 1, "columns": 1}),
    ],
)
async def test_no_size_that_makes_no_sense_is_taken_from_a_worker(rogues, lie):
    with pytest.raises(InvalidRequest, match="cannot be decoded"):
        await rogues.look(lie, FIRST_FRAME, PLACE, TURN)


async def test_what_cannot_be_stored_fails_the_request_and_no_other(workers):
    def full(_: object) -> None:
        raise Overloaded("no room")

    data = encoded(noise(), "PNG")
    with pytest.raises(Overloaded, match="no room"):
        await workers.cut(data, FIRST_FRAME, (1024,), PLACE, TURN, full)
    assert len(await cut(workers, data)) == 1


async def test_who_gives_up_waits_in_nobodys_way(workers):
    waiting = [asyncio.create_task(cut(workers, large_png(3000))) for _ in range(12)]
    await asyncio.sleep(0.05)
    for task in waiting:
        task.cancel()
    started = time.monotonic()
    assert len(await cut(workers, encoded(noise(), "PNG"))) == 1
    assert time.monotonic() - started < 5


async def test_when_closed_nobody_is_left_waiting():
    pool = Workers(ONE, WorkerMetrics())
    waiting = [asyncio.create_task(cut(pool, large_png(3000))) for _ in range(5)]
    await asyncio.sleep(0.05)
    started = processes()[-1]
    await asyncio.to_thread(pool.close)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, Overloaded | tuple) for each in answers)
    assert any(isinstance(each, Overloaded) for each in answers)
    assert not started.is_running()
    with pytest.raises(Overloaded, match="shutting down"):
        await cut(pool, b"late")


def test_a_worker_that_does_not_start_is_told_when_the_tier_starts(monkeypatch):
    nowhere = SimpleNamespace(__file__="/nowhere/worker.py")
    monkeypatch.setattr("serve_app.preprocess.child.worker", nowhere)
    with pytest.raises(WorkerLost):
        Workers(ONE, WorkerMetrics())
