"""Drafts, penalties and masks in a group: the tokens of one rank, and the same mirror on all."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from shards.comm import Communicator
from shards.lockstep import Leader, follow
from shards.runner import ModelRunner
from shards.step import Advance, Begin, Draws, StepPlan
from tests.multirank.ranks import on_ranks
from tests.shards.reference import FAMILIES, save_mistral

pytestmark = pytest.mark.multirank
CPU = torch.device("cpu")
COUNT = 10
PROMPT = (1, 30, 31, 32, 33, 30, 31)
DRAWS = (
    Draws(seed=3, choice=0, temperature=0.0, frequency_penalty=0.6, banned=(10,)),
    Draws(seed=3, choice=1, temperature=0.9, top_p=0.9, presence_penalty=0.5, banned=(10,)),
)
EVEN = sum(1 << token for token in range(20, 512, 2)).to_bytes(64, "little")


def play(
    comm: Communicator, folder: Path, expected: list[list[int]]
) -> tuple[list[list[int]], str]:
    """Two sequences with masks; with what is expected as drafts, every third of them wrong.

    Returns:
        the tokens of both, on rank 0; a digest of the rank's mirror.
    """
    runner = ModelRunner.load(
        folder, comm, device=CPU, dtype="float32", block_size=8, kv_cache_bytes=2**20
    )
    answers: list[list[int]] = [[], []]
    if comm.rank > 0:
        follow(runner, comm)
    else:
        leader = Leader(runner, comm)
        begun = tuple(
            Begin(row, PROMPT, 0, tuple(range(4 * row, 4 * row + 4)), draws)
            for row, draws in enumerate(DRAWS)
        )
        advances = tuple(Advance(row, len(PROMPT), masks=(EVEN,)) for row in (0, 1))
        plan = StepPlan(begun=begun, advances=advances)
        while min(map(len, answers)) < COUNT:
            for drawn in leader.run(plan):
                answers[drawn.row] += [token.token_id for token in drawn.tokens]
            plan = StepPlan(
                advances=tuple(
                    Advance(row, 1 + len(drafts), drafts=drafts, masks=(EVEN,) * (1 + len(drafts)))
                    for row, drafts in enumerate(map(guesses, answers, expected))
                )
            )
        leader.close()
    mirror = [
        (state.row, state.token_ids, state.computed, state.block_table) for state in runner.batch
    ]
    return answers, hashlib.sha256(pickle.dumps(mirror)).hexdigest()


def guesses(known: list[int], expected: list[int]) -> tuple[int, ...]:
    drafts = expected[len(known) : len(known) + 3]
    if len(known) % 3 == 2:
        drafts = [*drafts[:1], 21, 23][: len(drafts)]
    return tuple(drafts)


def test_a_group_with_drafts_draws_what_one_rank_draws_without(tmp_path: Path):
    folder = save_mistral(FAMILIES["12b"].model(), tmp_path / "model")
    ((plain, _),) = on_ranks(1, play, folder, [[], []])
    for size in (1, 2, 4):
        ranks = on_ranks(size, play, folder, plain)
        assert [answer[:COUNT] for answer in ranks[0][0]] == [answer[:COUNT] for answer in plain]
        assert len({mirror for _, mirror in ranks}) == 1
    assert all(token % 2 == 0 for answer in plain for token in answer)
