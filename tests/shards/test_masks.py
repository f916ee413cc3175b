"""What a grammar's mask does to a draw."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from shards.comm import SingleRank
from shards.sampler import sample
from tests.shards.specs import changed
from tests.shards.test_sampler import GREEDY, PLAIN, VOCAB, draw, logits


def mask_of(token_ids, vocab: int = VOCAB) -> bytes:
    """As xgrammar fills it: little-endian 32-bit words."""
    words = [0] * -(-vocab // 32)
    for token_id in token_ids:
        words[token_id // 32] |= 1 << token_id % 32
    return struct.pack(f"<{len(words)}I", *words)


@pytest.mark.parametrize(
    "spec", [GREEDY, PLAIN, changed(PLAIN, top_p=0.4), changed(PLAIN, top_k=2)]
)
def test_only_what_a_mask_allows_is_drawn(spec):
    allowed = (0, 31, 32, 64, 96)
    scores = logits(40)
    drawn = draw(
        scores.clone(), *[changed(spec, mask=mask_of(allowed), index=i) for i in range(40)]
    )
    assert set(drawn) <= set(allowed)
    unmasked = torch.full_like(scores, -math.inf)
    unmasked[:, allowed] = scores[:, allowed]
    assert drawn == draw(unmasked, *[changed(spec, index=i) for i in range(40)])


def test_a_mask_binds_its_own_row_and_leaves_logprobs_alone():
    scores = logits(3)
    expected = scores.double().log_softmax(1)
    masked = changed(GREEDY, mask=mask_of([50]), logprobs=1)
    plain, bound, other = sample(scores.clone(), [GREEDY, masked, PLAIN], 0, SingleRank())
    assert plain.token_id == int(scores[0].argmax())
    assert bound.token_id == 50
    assert bound.logprob == pytest.approx(expected[1, 50].item(), abs=1e-9)
    assert bound.top[0][0] == int(scores[1].argmax())
    assert other.token_id == draw(scores[2:].clone(), PLAIN)[0]


def test_ids_past_the_end_of_a_mask_are_not_allowed():
    scores = logits(1)
    scores[0, 96] = 99.0
    assert draw(scores.clone(), changed(GREEDY, mask=mask_of(range(64), 64)))[0] < 64


def test_a_grammar_that_allows_only_what_is_banned_outranks_the_ban():
    masked = changed(GREEDY, mask=mask_of([2]), banned=(2, 5))
    assert draw(logits(2), masked, changed(GREEDY, banned=(2, 5)))[0] == 2
    assert draw(logits(1), changed(masked, mask=mask_of([2, 9]))) == [9]
