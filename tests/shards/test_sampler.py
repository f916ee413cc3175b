"""The sampler against references that sort, and against Hugging Face's own processors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from shards.comm import SingleRank
from shards.errors import GroupError
from shards.noise import gumbel, largest
from shards.penalties import adjust_
from shards.sampler import sample
from shards.step import SampleSpec
from shards.truncation import truncated
from tests.shards.specs import changed, sample_spec

torch.set_num_threads(1)
VOCAB = 97
PLAIN = sample_spec(seed=7, temperature=1.0)
GREEDY = changed(PLAIN, temperature=0.0)


def logits(rows: int, vocab: int = VOCAB, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def draw(scores: torch.Tensor, *specs: SampleSpec) -> list[int]:
    return [drawn.token_id for drawn in sample(scores.clone(), specs, 0, SingleRank())]


# -- noise: a second implementation, in Python's own integers -----------------------------------


def reference_uniform(seed: int, choice: int, index: int, token_id: int) -> float:
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z: int) -> int:
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        return z ^ z >> 31

    key = 0
    for word in (seed, choice, index):
        key = mix((key + word + golden) & mask)
    return ((mix((key + (token_id + 1) * golden) & mask) >> 12) + 0.5) / 2**52


@pytest.mark.parametrize("draw_", [(0, 0, 0), (2**63 - 1, 7, 4095), (123456789, 1, 2)])
def test_noise_is_the_documented_hash(draw_):
    seed, choice, index = draw_
    start = 131_000
    noise = gumbel([draw_], start, 50, torch.device("cpu"))[0].tolist()
    for column, value in enumerate(noise):
        uniform = reference_uniform(seed, choice, index, start + column)
        expected = -math.log(-math.log(uniform))
        assert value == pytest.approx(expected, rel=1e-14)


def test_splitmix64_gives_its_published_numbers():
    # The first outputs of SplitMix64 seeded with 1234567, as published with its reference code.
    from shards import noise

    outputs = [noise._mix_int((1234567 + step * noise.GOLDEN) & (2**64 - 1)) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_noise_is_gumbel_distributed_and_uncorrelated():
    noise = gumbel([(5, 0, index) for index in range(4)], 0, 50_000, torch.device("cpu"))
    assert noise.isfinite().all()
    assert noise.mean(1).tolist() == pytest.approx([0.5772] * 4, abs=0.03)
    assert noise.var(1).tolist() == pytest.approx([math.pi**2 / 6] * 4, rel=0.05)
    off_diagonal = torch.corrcoef(noise) - torch.eye(4)
    assert off_diagonal.abs().max() < 0.02
    assert abs(torch.corrcoef(torch.stack([noise[0, 1:], noise[0, :-1]]))[0, 1]) < 0.02


# -- one rank against a reference that sorts ------------------------------------------------------


def reference_token(row: torch.Tensor, spec: SampleSpec) -> int:
    """The rules of sampling spelled out with sorts, in float64."""
    scores = row.double().clone()
    for token_id, bias in spec.draws.logit_bias:
        scores[token_id] += bias
    counts = dict(spec.output_counts)
    for token_id in {*spec.draws.prompt_ids, *counts}:
        value = scores[token_id]
        factor = spec.draws.repetition_penalty
        scores[token_id] = value * factor if value < 0 else value / factor
    for token_id, count in counts.items():
        scores[token_id] -= spec.draws.presence_penalty + spec.draws.frequency_penalty * count
    scores[list(spec.banned)] = -math.inf
    if spec.draws.temperature == 0:
        return int(scores.argmax())
    scores /= spec.draws.temperature
    if spec.draws.top_k:
        kth = scores.sort(descending=True).values[min(spec.draws.top_k, len(scores)) - 1]
        scores[scores < kth] = -math.inf
    if spec.draws.top_p < 1:
        values, order = scores.softmax(0).sort(descending=True, stable=True)
        before = values.cumsum(0) - values
        scores[order[before >= spec.draws.top_p]] = -math.inf
    if spec.draws.min_p:
        probabilities = scores.softmax(0)
        scores[probabilities < spec.draws.min_p * probabilities.max()] = -math.inf
    noise = [
        -math.log(
            -math.log(reference_uniform(spec.draws.seed, spec.draws.choice, spec.index, token_id))
        )
        for token_id in range(len(row))
    ]
    return int((scores + torch.tensor(noise, dtype=torch.float64)).argmax())


specs_of_any_kind = st.builds(
    sample_spec,
    seed=st.integers(0, 2**63 - 1),
    choice=st.integers(0, 8),
    index=st.integers(0, 10_000),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.9, 0.5, 0.05]),
    top_k=st.sampled_from([0, 1, 5, 40, 500]),
    min_p=st.sampled_from([0.0, 0.02, 0.3]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, -0.5, 1.1]),
    output_counts=st.sampled_from([(), ((3, 1), (70, 4), (96, 2))]),
    prompt_ids=st.sampled_from([(), (0, 3, 11, 95)]),
    logit_bias=st.sampled_from([(), ((2, 5.0), (3, -100.0))]),
    banned=st.sampled_from([(), (0, 2, 50)]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(specs_of_any_kind, min_size=1, max_size=5), st.integers(0, 1000))
def test_tokens_equal_the_sorting_reference_whatever_the_batch(specs, seed):
    scores = logits(len(specs), seed=seed)
    expected = [reference_token(row, spec) for row, spec in zip(scores, specs, strict=True)]
    assert draw(scores, *specs) == expected
    assert [draw(scores[i : i + 1], spec)[0] for i, spec in enumerate(specs)] == expected


def test_nearly_uniform_distributions_are_cut_exactly():
    scores = logits(3, vocab=4000, scale=1e-3)
    specs = [changed(PLAIN, seed=seed, top_p=0.5) for seed in range(3)]
    kept = truncated(scores, specs, SingleRank()).isfinite().sum(1).tolist()
    for row, count in zip(scores, kept, strict=True):
        values = row.double().softmax(0).sort(descending=True).values
        assert count == int((values.cumsum(0) - values < 0.5).sum())
    assert draw(scores, *specs) == [
        reference_token(row, spec) for row, spec in zip(scores, specs, strict=True)
    ]


def test_ties_at_the_threshold_are_all_kept():
    scores = torch.tensor([[1.0, 3.0, 2.0, 2.0, -0.0, 0.0]])
    top_2 = truncated(scores, [changed(PLAIN, top_k=2)], SingleRank())
    assert top_2.isfinite().tolist() == [[False, True, True, True, False, False]]
    top_5 = truncated(scores, [changed(PLAIN, top_k=5)], SingleRank())
    assert top_5.isfinite().all()  # -0 and 0 are equal
    flat = truncated(torch.zeros(1, 4), [changed(PLAIN, top_p=0.25)], SingleRank())
    assert flat.isfinite().all()


def test_improbable_ids_stay_possible_without_top_p():
    scores = torch.tensor([[0.0, -80.0, -1.0]])
    specs = [changed(PLAIN, min_p=1e-40)]
    beside_top_p = truncated(
        scores.repeat(2, 1), [*specs, changed(PLAIN, top_p=0.999)], SingleRank()
    )
    assert beside_top_p.isfinite().tolist() == [[True, True, True], [True, False, True]]


# -- Hugging Face as the oracle -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("setting", "warper"),
    [
        ({"top_k": 7}, TopKLogitsWarper(7)),
        ({"top_p": 0.8}, TopPLogitsWarper(0.8)),
        ({"top_p": 0.01}, TopPLogitsWarper(0.01)),
        ({"min_p": 0.1}, MinPLogitsWarper(0.1)),
    ],
)
def test_kept_sets_equal_hugging_face(setting, warper, seed):
    scores = logits(6, vocab=1000, seed=seed)
    mine = truncated(scores, [changed(PLAIN, **setting)] * 6, SingleRank())
    theirs = warper(torch.zeros(6, 1, dtype=torch.long), scores.clone())
    assert torch.equal(mine, theirs)


def test_top_k_then_top_p_then_min_p_equals_hugging_face():
    scores = logits(6, vocab=1000)
    spec = changed(PLAIN, top_k=30, top_p=0.7, min_p=0.2)
    theirs = scores.clone()
    ids = torch.zeros(6, 1, dtype=torch.long)
    for warper in (TopKLogitsWarper(30), TopPLogitsWarper(0.7), MinPLogitsWarper(0.2)):
        theirs = warper(ids, theirs)
    assert torch.equal(truncated(scores, [spec] * 6, SingleRank()), theirs)


def test_repetition_penalty_equals_hugging_face():
    scores = logits(1)
    spec = changed(
        PLAIN, repetition_penalty=1.7, prompt_ids=(1, 2, 3), output_counts=((3, 2), (90, 1))
    )
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[1, 2, 3, 3, 3, 90]]), scores)
    assert torch.allclose(adjust_(scores.clone(), [spec], 0), theirs, rtol=1e-6)


# -- draws ----------------------------------------------------------------------------------------


class LookedAt(tuple[int, ...]):
    """Counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return super().__iter__()


def test_a_prompt_is_not_gone_through_again_for_its_penalty_at_every_token():
    prompt = LookedAt(range(3, 90))
    spec = changed(PLAIN, repetition_penalty=1.7, prompt_ids=prompt)
    first = adjust_(torch.ones(1, 100), [spec], 0)
    before = prompt.times
    later = changed(spec, output_counts=((5, 2), (95, 1)))
    second = adjust_(torch.ones(1, 100), [later], 0)
    assert prompt.times == before
    assert (first[0] < 1).nonzero().flatten().tolist() == list(prompt)
    assert (second[0] < 1).nonzero().flatten().tolist() == [*prompt, 95]
    assert second.min() == 1 / torch.tensor(1.7)


def test_draws_follow_the_distribution():
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, -4.0])
    draws = 6000
    specs = [changed(PLAIN, index=index, temperature=0.8) for index in range(draws)]
    counts = Counter(draw(scores.expand(draws, -1), *specs))
    expected = ((scores / 0.8).softmax(0) * draws).tolist()
    chi_square = sum((counts[i] - value) ** 2 / value for i, value in enumerate(expected))
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001; the seed is fixed


@pytest.mark.parametrize("field", ["seed", "choice", "index"])
def test_seed_choice_and_index_each_change_the_draw(field):
    scores = torch.zeros(1, 1000)
    changes: list[dict[str, Any]] = [{field: value} for value in range(20)]
    tokens = {draw(scores, changed(PLAIN, **change))[0] for change in changes}
    assert len(tokens) > 15
    assert draw(scores, PLAIN) == draw(scores, PLAIN)


def test_greedy_takes_the_lowest_of_equals_in_any_dtype():
    scores = torch.zeros(1, 1000)
    scores[0, [300, 41, 999]] = 5.0
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert draw(scores.to(dtype), GREEDY) == [41]
    assert draw(scores, changed(GREEDY, banned=(41,))) == [300]
    assert draw(scores, changed(PLAIN, temperature=1e-9)) == [41]


def test_temperature_zero_beside_others_stays_greedy():
    scores = logits(3)
    mixed = draw(scores, GREEDY, changed(PLAIN, top_p=0.3), GREEDY)
    assert mixed[0] == int(scores[0].argmax())
    assert mixed[2] == int(scores[2].argmax())


def test_banned_ids_are_never_drawn():
    banned = tuple(range(96))
    assert draw(logits(1), changed(PLAIN, banned=banned, temperature=2.0)) == [96]
    assert draw(logits(1), changed(PLAIN, banned=banned, top_k=5, top_p=0.9)) == [96]


# -- the bound under which noise is not computed --------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 4.0, 30.0])
def test_noise_of_few_ids_finds_what_noise_of_all_finds(scale):
    width, start, rows = 40_000, 131_072, 24
    scores = logits(rows, vocab=width, scale=scale)
    scores[::3, 100:] = -math.inf
    scores[1, 7] = 200.0
    draws = [(seed, 0, 5) for seed in range(rows)]
    noisy = scores.double() + gumbel(draws, start, width, torch.device("cpu"))
    values, columns = largest(scores, draws, start)
    assert torch.equal(columns, noisy.max(1).indices)
    assert torch.equal(values, noisy.max(1).values)  # to the last bit


def test_the_bound_is_given_up_where_nothing_reaches_it(monkeypatch):
    from shards import noise

    monkeypatch.setattr(noise, "_MARGIN", -30.0)
    scores = logits(2, vocab=5000)
    draws = [(3, 0, 0), (4, 0, 0)]
    noisy = scores.double() + gumbel(draws, 0, 5000, torch.device("cpu"))
    assert torch.equal(largest(scores, draws, 0)[1], noisy.argmax(1))


def test_no_rows_no_tokens():
    assert sample(torch.zeros(0, VOCAB), [], 0, SingleRank()) == []


# -- logprobs -------------------------------------------------------------------------------------


def test_logprobs_are_the_models_own_and_only_for_who_asked():
    scores = logits(3)
    specs = [
        changed(PLAIN, logprobs=4, temperature=0.2, banned=(5,), logit_bias=((6, 50.0),)),
        PLAIN,
        changed(GREEDY, logprobs=0),
    ]
    first, second, third = sample(scores.clone(), specs, 0, SingleRank())
    reference = scores.double().log_softmax(1)
    assert first.token_id == 6
    assert first.logprob == pytest.approx(reference[0, 6].item(), abs=1e-9)
    best = reference[0].topk(4)
    assert [token for token, _ in first.top] == best.indices.tolist()
    assert [value for _, value in first.top] == pytest.approx(best.values.tolist(), abs=1e-9)
    assert math.isnan(second.logprob)
    assert second.top == third.top == ()
    assert third.logprob == pytest.approx(reference[2].max().item(), abs=1e-9)


def test_equal_alternatives_come_by_id():
    scores = torch.zeros(1, 1000, dtype=torch.bfloat16)
    (drawn,) = sample(scores, [changed(GREEDY, logprobs=5)], 0, SingleRank())
    assert [token for token, _ in drawn.top] == [0, 1, 2, 3, 4]
    assert drawn.logprob == pytest.approx(-math.log(1000), abs=1e-12)


@pytest.mark.parametrize(
    "spec", [GREEDY, PLAIN, changed(PLAIN, top_p=0.5), changed(PLAIN, top_k=3)]
)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_finite_score_is_an_error_not_a_token(spec, value):
    scores = logits(2)
    scores[1] = value
    with pytest.raises(GroupError, match="no finite logit"):
        sample(scores, [spec, spec], 0, SingleRank())
