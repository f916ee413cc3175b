"""Grammars in the engine: several requests, choices and drafts in one batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from zlib import crc32

import pytest

from shards.detokenizer import Vocabulary
from shards.engine import Engine
from shards.grammar import GrammarCompiler
from shards.request import (
    CallableTool,
    CallRules,
    GenerationRequest,
    GrammarSpec,
    Sampling,
    TextRules,
)
from shards.simulated import NextToken, SimulatedRunner
from shards.step import SampleSpec
from tests.shards.adversary import allowed_ids, shown
from tests.shards.spelling import spell

ENUM = {"type": "object", "properties": {"a": {"enum": [1, 2, 3]}, "b": {"enum": [True, None]}}}
SCHEMA = {**ENUM, "required": ["a", "b"], "additionalProperties": False}
SPECS = {
    "json": GrammarSpec(TextRules(json.dumps(SCHEMA))),
    "calls": GrammarSpec(
        calls=CallRules((CallableTool("f", json.dumps(SCHEMA)),), required=True, parallel=False)
    ),
    "free": None,
}


def drawn(vocabulary: Vocabulary) -> NextToken:
    """Any token that is allowed, by the sequence, the seed and the choice."""

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        number = crc32(repr((list(tokens), sample.draws.seed, sample.draws.choice)).encode())
        allowed = allowed_ids(sample.mask, vocabulary)
        token = int(allowed[number % len(allowed)])
        return vocabulary.eos_id if token in sample.banned else token

    return next_token


@pytest.mark.parametrize("max_drafts", [0, 6])
def test_each_request_has_its_own_grammar(tokenizer, max_drafts):
    vocabulary = tokenizer.vocabulary
    compiler = GrammarCompiler(vocabulary)
    runner = SimulatedRunner(
        drawn(vocabulary), num_blocks=512, block_size=16, image_token_id=vocabulary.image_id
    )
    engine = Engine(
        runner,
        vocabulary=vocabulary,
        num_blocks=512,
        block_size=16,
        max_context_tokens=2000,
        max_batch_sequences=16,
        max_step_tokens=512,
        max_waiting=16,
        max_drafts=max_drafts,
    )
    prompt = (1, *spell('{"a": 1, "b": true}', vocabulary))
    for name, spec in SPECS.items():
        engine.add(
            GenerationRequest(name, prompt, Sampling(seed=1, max_tokens=400, n=3), grammar=spec),
            grammar=None if spec is None else compiler.compile(spec),
        )
    answers: dict[tuple[str, int], tuple[int, ...]] = {}
    while engine.has_work:
        for delta in engine.step():
            key = delta.request_id, delta.choice
            answers[key] = answers.get(key, ()) + delta.token_ids
    compiler.close()
    assert len(answers) == 9
    for (name, _), ids in answers.items():
        if name == "json":
            assert ids[-1] == vocabulary.eos_id
            assert json.loads(shown(ids, vocabulary)).keys() == {"a", "b"}
        elif name == "calls":
            assert ids[0] == vocabulary.tool_calls_id
            [call] = json.loads(shown(ids, vocabulary))
            assert call["name"] == "f"
            assert call["arguments"].keys() == {"a", "b"}
