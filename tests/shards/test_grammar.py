"""Answers under a grammar, for both tokenizers: what may be said, what may not, and its text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shards.detokenizer import Vocabulary
from shards.errors import RequestError
from shards.grammar import AnswerMatcher, GrammarCompiler, GrammarLimits
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules
from tests.shards.adversary import adversarial_answer, allowed_ids, shown
from tests.shards.spelling import spell

POINT = json.dumps({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})
OBJECT = GrammarSpec(TextRules())
TOOLS = (CallableTool("f", POINT, "tools[0].function.parameters"), CallableTool("g"))
SEEDS = range(12)


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> Vocabulary:
    vocabulary: Vocabulary = tokenizer.vocabulary
    return vocabulary


@pytest.fixture(scope="module")
def compiler(vocabulary):
    compiler = GrammarCompiler(vocabulary, GrammarLimits(compile_s=60))
    yield compiler
    compiler.close()


def allowed(matcher: AnswerMatcher, vocabulary: Vocabulary) -> set[int]:
    [mask] = matcher.masks(())
    return set(allowed_ids(mask, vocabulary).tolist())


def accept_all(matcher: AnswerMatcher, token_ids: tuple[int, ...]) -> None:
    for token_id in token_ids:
        matcher.accept(token_id)


def test_any_object_is_an_object_that_begins_with_its_brace(compiler, vocabulary):
    grammar = compiler.compile(OBJECT)
    for seed in SEEDS:
        text = shown(adversarial_answer(grammar.matcher(), vocabulary, seed), vocabulary)
        assert text[0] == "{"
        assert isinstance(json.loads(text), dict)


def test_the_space_that_sentencepiece_writes_first_is_allowed_and_not_shown(compiler, vocabulary):
    usual = spell('{"a": 1}', vocabulary)
    matcher = compiler.compile(OBJECT).matcher()
    accept_all(matcher, usual)
    assert shown(usual, vocabulary) == '{"a": 1}'
    assert allowed(matcher, vocabulary) == {vocabulary.eos_id}
    first = allowed(compiler.compile(OBJECT).matcher(), vocabulary)
    assert all(shown((token_id,), vocabulary).lstrip() == shown((token_id,), vocabulary)
               for token_id in first)  # fmt: skip
    assert any(vocabulary.pieces[token_id][:1] == b" " for token_id in first) == (
        vocabulary.strip_leading_space
    )
    for token_id in vocabulary.byte_ids:
        if vocabulary.pieces[token_id] == b" ":
            matcher = compiler.compile(OBJECT).matcher()
            assert len(matcher.masks((token_id,))) == 1
            with pytest.raises(ValueError, match="forbids"):
                matcher.accept(token_id)


def test_the_answer_may_end_where_it_is_complete_and_only_there(compiler, vocabulary):
    matcher = compiler.compile(OBJECT).matcher()
    ids = spell('{"a": [1]}', vocabulary)
    for token_id in ids:
        assert vocabulary.eos_id not in allowed(matcher, vocabulary)
        matcher.accept(token_id)
    assert allowed(matcher, vocabulary) == {vocabulary.eos_id}
    matcher.accept(vocabulary.eos_id)
    assert allowed(matcher, vocabulary) == {vocabulary.eos_id}


def test_masks_look_ahead_along_ids_and_leave_the_place(compiler, vocabulary):
    grammar = compiler.compile(GrammarSpec(TextRules(), CallRules(TOOLS)))
    calls = (vocabulary.tool_calls_id, *spell('[{"name": "g", "arguments": {}}]', vocabulary))
    for ids in (spell('{"a": [1, {"b": null}]}', vocabulary), calls):
        ahead = grammar.matcher().masks(ids)
        assert len(ahead) == len(ids) + 1
        assert grammar.matcher().masks((*ids, vocabulary.eos_id)) == ahead
        step_by_step = grammar.matcher()
        for index, drawn in enumerate(ids):
            assert step_by_step.masks(ids[index : index + 3]) == ahead[index : index + 4]
            assert step_by_step.masks(()) == ahead[index : index + 1]
            step_by_step.accept(drawn)


def test_masks_stop_before_the_first_draft_that_is_refused(compiler, vocabulary):
    matcher = compiler.compile(OBJECT).matcher()
    good, bad = spell('{"a"', vocabulary), spell("]", vocabulary)
    assert len(matcher.masks((*good, *bad, *good))) == len(good) + 1
    assert len(matcher.masks((vocabulary.eos_id,))) == 1
    assert len(matcher.masks((vocabulary.image_id,))) == 1


def test_choices_do_not_share_their_places(compiler, vocabulary):
    grammar = compiler.compile(OBJECT)
    first, second = grammar.matcher(), grammar.matcher()
    before = second.masks(())
    accept_all(first, spell('{"a"', vocabulary))
    assert second.masks(()) == before != first.masks(())


@pytest.mark.parametrize("parallel", [True, False])
def test_required_calls_begin_at_once_and_conform(compiler, vocabulary, parallel):
    grammar = compiler.compile(
        GrammarSpec(calls=CallRules(TOOLS, required=True, parallel=parallel))
    )
    several = False
    for seed in SEEDS:
        matcher = grammar.matcher()
        assert allowed(matcher, vocabulary) == {vocabulary.tool_calls_id}
        matcher.accept(vocabulary.tool_calls_id)
        calls = json.loads(shown(adversarial_answer(matcher, vocabulary, seed), vocabulary))
        several = several or len(calls) > 1
        for call in calls:
            assert call.keys() == {"name", "arguments"}
            if call["name"] == "f":
                assert call["arguments"].keys() == {"x"}
                assert isinstance(call["arguments"]["x"], int)
            else:
                assert call["name"] == "g"
                assert isinstance(call["arguments"], dict)
    assert several == parallel


def test_calls_that_may_be_left_out_leave_the_text_free(compiler, vocabulary):
    matcher = compiler.compile(GrammarSpec(calls=CallRules(TOOLS))).matcher()
    assert matcher.masks(spell("Let me see", vocabulary)) == (b"",) * (
        len(spell("Let me see", vocabulary)) + 1
    )
    accept_all(matcher, spell("Let me see", vocabulary))
    matcher.accept(vocabulary.tool_calls_id)
    text = shown(adversarial_answer(matcher, vocabulary, 3), vocabulary)
    assert {call["name"] for call in json.loads(text)} <= {"f", "g"}
    plain = compiler.compile(GrammarSpec(calls=CallRules(TOOLS))).matcher()
    accept_all(plain, (*spell("Hi", vocabulary), vocabulary.eos_id))


def test_json_or_calls_but_not_one_within_the_other(compiler, vocabulary):
    grammar = compiler.compile(GrammarSpec(TextRules(), CallRules(TOOLS)))
    matcher = grammar.matcher()
    assert vocabulary.tool_calls_id in allowed(matcher, vocabulary)
    accept_all(matcher, spell("{", vocabulary))
    assert vocabulary.tool_calls_id not in allowed(matcher, vocabulary)
    called = grammar.matcher()
    called.accept(vocabulary.tool_calls_id)
    assert vocabulary.tool_calls_id not in allowed(called, vocabulary)


def test_a_prefix_and_what_continues_it_conform_together(compiler, vocabulary):
    grammar = compiler.compile(GrammarSpec(TextRules(POINT, closed=True), prefix='{"x": '))
    for seed in SEEDS:
        rest = adversarial_answer(grammar.matcher(), vocabulary, seed)
        text = b"".join(vocabulary.pieces[token_id] for token_id in rest).decode()
        assert json.loads('{"x": ' + text).keys() == {"x"}
    with pytest.raises(RequestError, match="does not begin") as caught:
        compiler.compile(GrammarSpec(TextRules(POINT), prefix="```json"))
    assert caught.value.param == "messages"


def test_references_are_each_tool_s_own(compiler, vocabulary):
    def tool(name: str, kind: str) -> CallableTool:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"v": {"$ref": "#/$defs/V"}},
            "required": ["v"],
            "$defs": {"V": {"type": kind}},
        }
        return CallableTool(name, json.dumps(schema))

    rules = CallRules((tool("i", "integer"), tool("b", "boolean")), required=True)
    grammar = compiler.compile(GrammarSpec(calls=rules))
    for name, good, bad in (("i", "1", "true"), ("b", "true", "1")):
        for value, fits in ((good, True), (bad, False)):
            text = f'[{{"name": "{name}", "arguments": {{"v":{value}}}}}]'
            ids = (vocabulary.tool_calls_id, *spell(text, vocabulary))
            assert (len(grammar.matcher().masks(ids)) == len(ids) + 1) == fits
