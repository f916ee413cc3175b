"""Logits and greedy tokens equal to transformers', at 1, 2 and 4 ranks, from both layouts."""

import pytest
import torch

from tests.multirank.parity import Job, answer_all
from tests.multirank.ranks import on_ranks
from tests.shards.reference import FAMILIES, expected, save_hf, save_mistral

pytestmark = pytest.mark.multirank

TOKENS = 32
JOBS = ("12b-hf-sharded", "12b-mistral", "large-hf", "large-mistral-sharded")
PROMPTS = ("text", "one picture", "three pictures", "second turn")


@pytest.fixture(scope="module")
def models():
    return {name: family.model() for name, family in FAMILIES.items()}


@pytest.fixture(scope="module")
def oracle(models):
    """transformers' answers by (family, prompt)."""
    return {
        (name, title): expected(models[name], prompt, TOKENS)
        for name, family in FAMILIES.items()
        for title, prompt in family.prompts().items()
    }


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda ranks: f"tp{ranks}")
def answers(request, models, tmp_path_factory):
    """Our answers by (job, prompt); every rank's, which must agree."""
    folder = tmp_path_factory.mktemp("checkpoints")
    saved = (
        save_hf(models["12b"], folder / JOBS[0], sharded=True),
        save_mistral(models["12b"], folder / JOBS[1]),
        save_hf(models["large"], folder / JOBS[2]),
        save_mistral(models["large"], folder / JOBS[3], files=3),
    )
    jobs = {
        name: Job(path, FAMILIES[name.partition("-")[0]].prompts())
        for name, path in zip(JOBS, saved, strict=True)
    }
    first, *others = on_ranks(request.param, answer_all, jobs, TOKENS)
    for other in others:
        assert all(other[key][0] == first[key][0] for key in first)
    return first


@pytest.mark.parametrize("title", PROMPTS)
@pytest.mark.parametrize("job", JOBS)
def test_equals_transformers(answers, oracle, job, title):
    tokens, logits = answers[job, title]
    expected_tokens, expected_logits = oracle[job.partition("-")[0], title]
    assert tokens == expected_tokens
    torch.testing.assert_close(logits, expected_logits, rtol=0, atol=2e-4)
    # Worth comparing only if the model has something to say.
    assert expected_logits.std() > 0.5
    assert len(set(expected_tokens)) > TOKENS // 4
