"""A vocabulary cut over ranks gives the tokens that one rank gives, on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from shards.comm import Communicator, SingleRank
from shards.errors import GroupError
from shards.request import TokenLogprob
from shards.sampler import sample
from shards.step import SampleSpec
from tests.multirank.ranks import on_ranks
from tests.shards.specs import sample_spec

pytestmark = pytest.mark.multirank
VOCAB = 2048
EVERY_SEVENTH = sum(1 << token for token in range(0, VOCAB, 7)).to_bytes(VOCAB // 8, "little")
ONE_BANNED = (1 << 1999).to_bytes(VOCAB // 8, "little")


def batches() -> list[tuple[torch.Tensor, list[SampleSpec]]]:
    """Peaked, nearly flat and tied logits, under every kind of setting at once."""
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(15, VOCAB, generator=generator) * 1e-3
    peaked = torch.randn(15, VOCAB, generator=generator) * 4
    tied = (torch.randn(15, VOCAB, generator=generator) * 2).round()
    settings: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {},
        {"top_p": 0.9},
        {"top_p": 0.1, "temperature": 0.4},
        {"top_k": 10},
        {"top_k": 300, "top_p": 0.7},
        {"min_p": 0.05},
        {"top_k": 50, "top_p": 0.95, "min_p": 0.01, "temperature": 1.5},
        {"temperature": 0.0, "logprobs": 5},
        {"logprobs": 20, "logit_bias": ((2000, 9.0), (5, -9.0))},
        {"repetition_penalty": 1.4, "prompt_ids": (1, 700, 1500), "output_counts": ((1900, 3),)},
        {"mask": EVERY_SEVENTH},
        {"mask": EVERY_SEVENTH, "temperature": 0.0, "logprobs": 3},
        {"mask": ONE_BANNED, "banned": (3, 1999)},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5, "banned": tuple(range(0, VOCAB, 3))},
    ]
    specs = [
        sample_spec(
            **({"seed": 40 + row, "choice": row % 3, "index": row, "temperature": 1.0} | one)
        )
        for row, one in enumerate(settings)
    ]
    return [(values, specs) for values in (flat, peaked, tied)]


def sample_share(comm: Communicator) -> list[list[TokenLogprob]]:
    width = VOCAB // comm.size
    start = comm.rank * width
    return [
        sample(values[:, start : start + width].clone(), specs, start, comm)
        for values, specs in batches()
    ]


@dataclass(frozen=True)
class Outcome:
    drawn: list[list[TokenLogprob]]
    lowest_of_equals: int
    fault: str


def outcome(comm: Communicator) -> Outcome:
    return Outcome(sample_share(comm), greedy_of_equals(comm), fault(comm))


def greedy_of_equals(comm: Communicator) -> int:
    """Every rank holds the same 8 columns, two of them largest."""
    values = torch.tensor([[0.0, 0, 0, 1, 0, 0, 1, 0]])
    spec = sample_spec(seed=0, choice=0, index=0, temperature=0.0)
    return sample(values, [spec], comm.rank * 8, comm)[0].token_id


def fault(comm: Communicator) -> str:
    """The last rank computes nonsense."""
    values = torch.zeros(1, 8)
    if comm.rank == comm.size - 1:
        values[0, 3] = torch.nan
    spec = sample_spec(seed=0, choice=0, index=0, temperature=1.0, top_p=0.9)
    try:
        return str(sample(values, [spec], comm.rank * 8, comm))
    except GroupError as error:
        return str(error)


@pytest.fixture(scope="module", params=[2, 4])
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    return on_ranks(request.param, outcome)


def test_every_rank_draws_what_one_rank_draws(outcomes):
    alone = sample_share(SingleRank())
    for rank in outcomes:
        for mine, theirs in zip(rank.drawn, alone, strict=True):
            assert [one.token_id for one in mine] == [one.token_id for one in theirs]
            for one, other in zip(mine, theirs, strict=True):
                assert [token for token, _ in one.top] == [token for token, _ in other.top]
                values = [one.logprob, *(value for _, value in one.top)]
                expected = [other.logprob, *(value for _, value in other.top)]
                assert values == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_equals_across_ranks_go_to_the_lowest_id(outcomes):
    assert [rank.lowest_of_equals for rank in outcomes] == [3] * len(outcomes)


def test_a_fault_on_one_rank_is_an_error_on_all(outcomes):
    assert all("no finite logit" in rank.fault for rank in outcomes)
