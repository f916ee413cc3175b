"""A rank as its replica calls it, without Ray: over no model, with a journal."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops import nano
from serve_app.config import Decoder, Simulate
from serve_app.decoder.journal import JournalError
from serve_app.decoder.journal_reader import read_journals
from serve_app.decoder.rank import Rank, RankSpec
from serve_app.messages import Features, Generate
from shards.errors import KernelError
from shards.grid import Grid
from shards.request import (
    Delta,
    FinishReason,
    GenerationRequest,
    GrammarSpec,
    Picture,
    Sampling,
    Tenant,
    TextRules,
)
from shards.roofline import ROOFLINES
from shards.tally import Tally
from shards.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("models") / "nano")


def spec(folder: Path, journal: Path, simulate: Simulate) -> RankSpec:
    decoder = Decoder(journal_folder=journal, simulate=simulate)
    return RankSpec(0, "group", folder, decoder, max_context_tokens=4096, rendezvous="")


async def answer(rank: Rank, job: GenerationRequest) -> list[Delta]:
    await rank.load()
    await rank.submit(Generate(job))
    deltas: list[Delta] = []
    async for emission in rank.emissions():
        deltas += emission.deltas
        if deltas and deltas[-1].finish_reason is not None:
            break
    await rank.close()
    return deltas


async def test_steps_that_are_quicker_than_streams_travel_together(folder, tmp_path, monkeypatch):
    """All but the first and the last, which do not wait; a step takes 30 ms here."""
    monkeypatch.setattr("serve_app.decoder.rank.LEAST_INTERVAL_S", 60.0)
    rank = Rank(spec(folder, tmp_path, Simulate(roofline="pixtral-large-bf16-4xa100")))
    await rank.load()
    job = GenerationRequest("r", (1, 100, 101), Sampling(seed=1, max_tokens=5))
    await rank.submit(Generate(job))
    told: list[int] = []
    async for emission in rank.emissions():
        if emission.deltas:
            told.append(sum(len(delta.token_ids) for delta in emission.deltas))
        if sum(told) == 5:
            break
    await rank.close()
    assert told == [1, 4]


async def test_a_simulated_rank_says_readable_text_and_journals_it(folder, tmp_path):
    rank = Rank(spec(folder, tmp_path, Simulate()))
    job = GenerationRequest("r", (1, 100, 101), Sampling(seed=1, max_tokens=50))
    deltas = await answer(rank, job)
    said = [token_id for delta in deltas for token_id in delta.token_ids]
    assert (len(said), deltas[-1].finish_reason) == (50, FinishReason.LENGTH)
    pieces = Tokenizer.from_folder(folder).vocabulary.pieces
    assert b"".join(pieces[token_id] for token_id in said).decode("ascii").isprintable()
    (page,) = read_journals(tmp_path, {}, now_s=0)
    assert (page.group, page.tallies) == ("group", (Tally("r", 1, 0, text=3, output=50),))


async def test_a_roofline_keeps_its_time(folder, tmp_path):
    name = "pixtral-large-bf16-4xa100"
    rank = Rank(spec(folder, tmp_path, Simulate(roofline=name)))
    job = GenerationRequest("r", (1, 100), Sampling(seed=1, max_tokens=11))
    started = asyncio.get_running_loop().time()
    await answer(rank, job)
    work, hardware = ROOFLINES[name].work, ROOFLINES[name].hardware
    # The canary takes a step, too.
    assert asyncio.get_running_loop().time() - started >= (
        11 * work.weight_bytes / hardware.bytes_per_s
    )


async def test_an_abort_ends_a_request_that_runs_and_one_that_comes_later(folder, tmp_path):
    rank = Rank(spec(folder, tmp_path, Simulate(roofline="pixtral-large-int8-2xa100")))
    await rank.load()
    job = GenerationRequest("r", (1, 100), Sampling(seed=1, max_tokens=1000))
    await rank.submit(Generate(job))
    deltas: list[Delta] = []
    async for emission in rank.emissions():
        deltas += emission.deltas
        if len(deltas) == 3:
            await rank.abort(["r", "late"])
            late = GenerationRequest("late", job.prompt, job.sampling)
            await rank.submit(Generate(late))
        if deltas and deltas[-1].request_id == "late":
            break
    await rank.close()
    *_, last, late_end = deltas
    assert (last.request_id, last.finish_reason) == ("r", FinishReason.ABORT)
    assert (late_end.finish_reason, late_end.prompt_tokens) == (FinishReason.ABORT, 0)
    (page,) = read_journals(tmp_path, {}, now_s=0)
    assert page.tallies == (Tally("r", 1, 0, text=2, output=last.completion_tokens),)


async def test_an_abort_ends_a_request_whose_grammar_waits_to_be_compiled(folder, tmp_path):
    rank = Rank(spec(folder, tmp_path, Simulate()))
    await rank.load()
    grammars, release = rank._grammars, threading.Event()
    assert grammars is not None
    grammars._slow.submit(release.wait, 60)
    sampling = Sampling(seed=1, max_tokens=10)
    submitted = []
    # The first is begun by the thread, which is held; the second waits.
    for name in ("begun", "waiting"):
        rules = GrammarSpec(TextRules(json.dumps({"const": name})))
        job = GenerationRequest(name, (1, 100), sampling, grammar=rules)
        submitted.append(asyncio.create_task(rank.submit(Generate(job))))
    while len(rank._compiling) < 2:
        await asyncio.sleep(0.001)
    await rank.abort(["begun", "waiting"])
    await asyncio.wait_for(asyncio.gather(*submitted), 10)
    ended = []
    async for emission in rank.emissions():
        ended += [d for d in emission.deltas if d.finish_reason is FinishReason.ABORT]
        if len(ended) == 2:
            break
    assert {delta.request_id for delta in ended} == {"begun", "waiting"}
    assert not rank._compiling
    assert not grammars._schemas._queues
    release.set()
    await rank.close()


async def test_a_rank_that_can_keep_no_journal_does_not_load(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError):
        await Rank(spec(folder, tmp_path / "file" / "journal", Simulate())).load()


def test_a_simulated_rank_imports_no_torch(folder, tmp_path):
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from serve_app.config import Decoder, Simulate\n"
        "from serve_app.decoder.rank import Rank, RankSpec\n"
        "spec = RankSpec(0, 'group', Path(sys.argv[1]), Decoder(simulate=Simulate()), 4096, '')\n"
        "async def run():\n"
        "    rank = Rank(spec)\n"
        "    await rank.load()\n"
        "    await rank.close()\n"
        "asyncio.run(run())\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == 0


PROMPT = (1, *range(100, 180))  # five full blocks of 16, and one token


@pytest.mark.parametrize(
    ("prefix_cache", "max_drafts", "cached", "drafts"),
    [("team", 0, True, False), ("off", 0, False, False), ("shared", 4, True, True)],
)
async def test_the_config_says_what_the_engine_keeps_and_guesses(
    folder, tmp_path, prefix_cache, max_drafts, cached, drafts
):
    decoder = Decoder(
        journal_folder=tmp_path,
        simulate=Simulate(),
        prefix_cache=prefix_cache,
        max_drafts=max_drafts,
    )
    rank = Rank(RankSpec(0, "group", folder, decoder, max_context_tokens=4096, rendezvous=""))
    await rank.load()
    found: list[int] = []
    said: tuple[int, ...] = ()
    # What a simulation says follows from the seed: the second prompt holds the answer to come.
    for name in ("first", "again"):
        job = GenerationRequest(name, (*PROMPT, *said), Sampling(seed=1, max_tokens=12))
        await rank.submit(Generate(job))
        tokens: list[int] = []
        async for emission in rank.emissions():
            own = [delta for delta in emission.deltas if delta.request_id == name]
            tokens += [token_id for delta in own for token_id in delta.token_ids]
            if own and own[-1].finish_reason is not None:
                found.append(own[-1].cached_tokens)
                stats = emission.stats
                break
        said = tuple(tokens)
    await rank.close()
    assert found == [0, 80 if cached else 0]
    assert (stats.drafted_tokens_total > 0) == drafts


async def test_the_config_chooses_the_kernels(folder, tmp_path):
    decoder = Decoder(journal_folder=tmp_path, dtype="bfloat16", kernels="native")
    rank = Rank(RankSpec(0, "group", folder, decoder, max_context_tokens=4096, rendezvous=""))
    with pytest.raises(KernelError, match="float32"):
        await rank.load()


GRID = Grid(1, 2)
ONE, TWO = (Picture(GRID, content) for content in ("one", "two"))
# [IMG] [IMG] [IMG_END] of nano's tokenizer
SHOWN = (10, 10, 15)


def showing(*pictures: Picture, salt: str = "team") -> GenerationRequest:
    prompt = (1, *SHOWN * len(pictures), 100)
    sampling = Sampling(seed=1, max_tokens=1)
    tenant = Tenant("team", cache_salt=salt)
    return GenerationRequest("r", prompt, sampling, pictures, tenant=tenant)


async def brought(picture: Picture) -> Features:
    async def ref() -> np.ndarray:
        return np.ones((GRID.patches, 8), np.float32)[:]  # a view, as of an object in a store

    return Features(picture, ref())


async def ended(rank: Rank) -> list[Delta]:
    deltas: list[Delta] = []
    async for emission in rank.emissions():
        deltas += emission.deltas
        if deltas and deltas[-1].finish_reason is not None:
            break
    return deltas


async def test_features_that_came_once_need_not_come_again_under_the_same_salt(folder, tmp_path):
    rank = Rank(spec(folder, tmp_path, Simulate()))
    await rank.load()
    assert await rank.submit(Generate(showing(ONE, TWO))) == (0, 1)
    assert await rank.submit(Generate(showing(ONE), (await brought(ONE),))) == ()
    await ended(rank)
    assert await rank.submit(Generate(showing(ONE, TWO, ONE))) == (1,)
    assert await rank.submit(Generate(showing(ONE, salt="other"))) == (0,)
    assert await rank.submit(Generate(showing(ONE, ONE))) == ()
    assert (await ended(rank))[-1].finish_reason is FinishReason.LENGTH
    await rank.close()
    # What lacked something was never counted.
    (page,) = read_journals(tmp_path, {}, now_s=0)
    (tally,) = page.tallies
    assert (tally.attempt, tally.output) == (1, 1)


async def test_a_rank_without_room_or_without_a_prefix_cache_keeps_nothing(folder, tmp_path):
    settings: list[dict[str, Any]] = [{"feature_cache_bytes": 0}, {"prefix_cache": "off"}]
    for number, setting in enumerate(settings):
        journal = tmp_path / str(number)
        whole = spec(folder, journal, Simulate())
        decoder = whole.decoder.model_copy(update=setting)
        rank = Rank(replace(whole, decoder=decoder))
        await rank.load()
        assert await rank.submit(Generate(showing(ONE), (await brought(ONE),))) == ()
        await ended(rank)
        assert await rank.submit(Generate(showing(ONE))) == (0,)
        await rank.close()
