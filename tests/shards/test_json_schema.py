"""Which schemas are taken, and that answers conform to every one of them."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shards import json_schema as rules
from shards.errors import RequestError
from shards.grammar import AnswerGrammar
from shards.grammar_recipe import Kitchen, text_recipe
from shards.json_schema import checked_arguments, checked_schema
from tests.shards.adversary import Unfinished, adversarial_answer, allowed_ids, shown

A = {"$ref": "#/$defs/a"}


def refusal(schema: Any) -> str:
    with pytest.raises(RequestError) as caught:
        checked_schema(schema if isinstance(schema, str) else json.dumps(schema), "f", closed=False)
    assert caught.value.param == "f"
    return caught.value.message


def bound(schema: Any, *, closed: bool = False) -> dict[str, Any]:
    return checked_schema(json.dumps(schema), "f", closed=closed)


@pytest.fixture(scope="module")
def kitchen(tokenizer) -> Kitchen:
    return Kitchen(tokenizer.vocabulary, threads=1)


def answers(kitchen, vocabulary, schema: Any, seeds=range(4), *, closed: bool = False):
    recipe = text_recipe(bound(schema, closed=closed), space=vocabulary.strip_leading_space)
    grammar = AnswerGrammar(vocabulary, text=kitchen.compiled(recipe), calls=None, required=False)
    for seed in seeds:
        text = shown(adversarial_answer(grammar.matcher(), vocabulary, seed), vocabulary)
        assert text == text.strip()
        yield json.loads(text)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
small = st.integers(-1000, 1000)


@st.composite
def ranges(draw, low: str, high: str, values: Any = None) -> dict[str, Any]:
    values = values or st.integers(0, 6)
    least, most = sorted((draw(values), draw(values)))
    given = draw(st.sets(st.sampled_from([low, high])))
    return {key: value for key, value in ((low, least), (high, most)) if key in given}


values = st.none() | st.booleans() | small | names
leaves = st.one_of(
    st.sampled_from([{}, {"type": "null"}, {"type": "boolean"}, {"type": ["string", "null"]}, A]),
    ranges("minLength", "maxLength").map(lambda bounds: {"type": "string", **bounds}),
    ranges("minimum", "maximum", small).map(lambda bounds: {"type": "integer", **bounds}),
    ranges("minimum", "maximum", st.integers(-9999, 9999).map(lambda n: n / 100)).map(
        lambda bounds: {"type": "number", **bounds}
    ),
    small.map(lambda least: {"type": "integer", "exclusiveMinimum": least}),
    st.sampled_from([r"^[a-z]{2,5}$", r"^(ab|c)+\d?$", "x|y", r"^[^a]{1,4}z$", r"^\w+ \w+$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from(sorted(rules._FORMATS)).map(lambda name: {"type": "string", "format": name}),
    st.lists(values | st.lists(values, max_size=2), min_size=1, max_size=4).map(
        lambda chosen: {"enum": chosen}
    ),
    values.map(lambda value: {"const": value, "description": "d"}),
)


@st.composite
def objects(draw, inner) -> dict[str, Any]:
    properties = draw(st.dictionaries(names, inner, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = [name for name in properties if draw(st.booleans())]
    more = draw(st.none() | st.booleans() | inner)
    return schema if more is None else {**schema, "additionalProperties": more}


@st.composite
def arrays(draw, inner) -> dict[str, Any]:
    schema = {"type": "array", "items": draw(inner), **draw(ranges("minItems", "maxItems"))}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    return schema


schemas = st.recursive(
    leaves,
    lambda inner: (
        objects(inner)
        | arrays(inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches})
    ),
    max_leaves=6,
).map(lambda schema: {**schema, "$defs": {"a": {"enum": [1, "a"]}}})


def test_strings_of_bounded_length_hold_no_raw_control_characters(kitchen, tokenizer):
    """xgrammar's rule for them forbids line breaks only."""
    vocabulary = tokenizer.vocabulary
    schema = {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 3}}
    recipe = text_recipe(bound(schema), space=vocabulary.strip_leading_space)
    grammar = AnswerGrammar(vocabulary, text=kitchen.compiled(recipe), calls=None, required=False)
    matcher = grammar.matcher()
    for piece in (b"[", b'"'):
        matcher.accept(vocabulary.pieces.index(piece))
    [mask] = matcher.masks(())
    allowed = [vocabulary.pieces[token_id] for token_id in allowed_ids(mask, vocabulary)]
    assert b"a" in allowed
    assert b"\n" not in allowed
    assert not [piece for piece in allowed if set(piece) & set(range(0x20)) - {0x0A}]
    tab = vocabulary.pieces.index(b"\t")
    assert len(matcher.masks((tab,))) == 1
    with pytest.raises(ValueError, match="forbids"):
        matcher.accept(tab)


@pytest.mark.parametrize("most", [0, 1])
def test_first_items_beyond_the_most_there_may_be_are_left_out(kitchen, tokenizer, most):
    first = [{"type": "boolean"}, {"type": "null"}]
    schema = {"type": "array", "prefixItems": first, "maxItems": most}
    for answer in answers(kitchen, tokenizer.vocabulary, schema):
        assert len(answer) <= most


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schema=schemas, closed=st.booleans())
def test_whatever_may_be_said_conforms(kitchen, tokenizer, schema, closed):
    validator = jsonschema.Draft202012Validator(schema)
    try:
        for answer in answers(kitchen, tokenizer.vocabulary, schema, range(2), closed=closed):
            validator.validate(answer)
    except Unfinished:
        assume(False)


def test_what_pydantic_writes_is_taken(kitchen, tokenizer):
    schema = {
        "title": "Reply",
        "type": "object",
        "properties": {
            "kind": {"$ref": "#/$defs/Kind"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "tree": {"$ref": "#/$defs/Node"},
            "at": {"type": "string", "format": "date-time", "title": "At"},
        },
        "required": ["kind", "note", "tree", "at"],
        "additionalProperties": False,
        "$defs": {
            "Kind": {"type": "string", "enum": ["a", "b"]},
            "Node": {
                "type": "object",
                "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
                "required": ["next"],
                "additionalProperties": False,
            },
        },
    }
    for answer in answers(kitchen, tokenizer.vocabulary, schema):
        jsonschema.validate(answer, schema)


def test_closed_objects_have_no_other_properties():
    schema = {"type": "object", "properties": {"a": {"type": "object"}}}
    assert bound(schema, closed=True)["additionalProperties"] is False
    assert bound(schema, closed=True)["properties"]["a"]["additionalProperties"] is True
    assert bound(schema)["additionalProperties"] is True
    assert bound({**schema, "additionalProperties": True}, closed=True)["additionalProperties"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "readable JSON"),
        ("[" * 100_000, "larger than"),
        ("[" * 50_000, "readable JSON"),
        ([], "must be an object"),
        ('{"title": "\\ud800", "const": "\\ud800"}', "Unicode"),
        ({"type": "text"}, "at #/type: must be of object"),
        ({"type": []}, "at #/type: must name a type"),
        ({"properties": {"a": False}}, "at #/properties/a: must be a schema"),
        ({"properties": []}, "at #/properties: must be an object"),
        ({"properties": {"a": {}}, "required": ["b"]}, "'b' must be one of the properties"),
        ({"required": "a"}, "must be a list of names"),
        *[
            ({"properties": {"a": {keyword: {}}}}, f"at #/properties/a: the keyword '{keyword}'")
            for keyword in (
                "oneOf", "allOf", "not", "if", "patternProperties", "propertyNames", "contains",
                "dependentRequired", "minProperties", "multipleOf", "unevaluatedProperties",
                "additionalItems", "discriminator", "nullable", "$anchor", "$dynamicRef", "$defs",
            )
        ],
        ({"type": "array", "uniqueItems": True}, "'uniqueItems' is not supported"),
        ({"anyOf": []}, "at #/anyOf: must be a list"),
        ({"anyOf": [{}], "properties": {}}, "'properties' beside 'anyOf'"),
        ({"$ref": "#", "type": "object"}, "'type' beside '$ref'"),
        ({"enum": ["a", 1], "type": "string"}, "a value of another type"),
        ({"const": True, "type": "integer"}, "a value of another type"),
        ({"enum": []}, "must be a list"),
        ({"$ref": "http://example.com/schema"}, "'$ref' must be"),
        ({"$ref": "#/properties/a"}, "'$ref' must be"),
        (A, "is not defined"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "'minLength' exceeds"),
        ({"type": "string", "maxLength": -1}, "between 0 and"),
        ({"type": "string", "maxLength": 10**9}, "between 0 and"),
        ({"type": "array", "maxItems": True}, "between 0 and"),
        ({"type": "string", "pattern": "a", "maxLength": 2}, "takes one of"),
        ({"type": "string", "pattern": "a", "format": "date"}, "takes one of"),
        ({"type": "string", "format": "ipv4"}, "must be one of date"),
        ({"type": "string", "format": []}, "must be one of date"),
        ({"type": "integer", "minimum": "1"}, "must be a number"),
        ({"type": "integer", "minimum": 1e300}, "must be a number"),
        ({"type": "integer", "exclusiveMinimum": True}, "must be a number"),
        ({"type": "number", "minimum": 1e-9}, "decimals"),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": 1}, "takes one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_promised_is_refused_by_name(schema, words):
    assert words in refusal(schema)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "1 to 256"),
        ("a" * 257, "1 to 256"),
        ("(", "no regular expression"),
        ('a"b', "quotes"),
        ("a\nb", "control characters"),
        (r"a\\b", "escape"),
        (r"a\nb", "escape"),
        (r"\bword\b", "escape"),
        (r"(a)\1", "escape"),
        (r"\S+", "escape"),
        ("(?=a)a", "'(?'"),
        ("(?i)a", "'(?'"),
        ("a^b", "ends only"),
        ("a$b", "ends only"),
        ("a{5000}", "repeats more"),
        ("(a{1,2}){2,9999}", "repeats more"),
        ("a{99999999999999999999}", "no regular expression"),
    ],
)
def test_patterns_that_mean_something_else_within_json_are_refused(pattern, words):
    message = refusal({"type": "string", "pattern": pattern})
    assert message.startswith("at #/pattern: ")
    assert words in message


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {**A, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": A}},
        {**A, "$defs": {"a": {"type": "object", "properties": {"a": A}, "required": ["a"]}}},
        {**A, "$defs": {"a": {"type": "array", "items": A, "minItems": 1}}},
        {**A, "$defs": {"a": {"anyOf": [A, {"type": "array", "prefixItems": [A], "minItems": 1}]}}},
        {"type": "object", "properties": {"a": A}, "$defs": {"a": A}},
        {"type": "array", "items": {"anyOf": [{}, A]}, "$defs": {"a": A}},
    ],
)
def test_values_within_themselves_without_end_are_refused(schema):
    assert "without end" in refusal(schema)


def test_values_defined_by_themselves_are_refused():
    assert "by itself" in refusal({**A, "$defs": {"a": {"anyOf": [A, {"type": "null"}]}}})
    assert "by itself" in refusal({"anyOf": [{"type": "null"}, {"$ref": "#"}]})


def test_values_within_themselves_that_may_end_are_taken(kitchen, tokenizer):
    node = {"type": "object", "properties": {"next": A}, "additionalProperties": False}
    for schema in (
        {**A, "$defs": {"a": node}},
        {**A, "$defs": {"a": {"type": "array", "items": A}}},
    ):
        for answer in answers(kitchen, tokenizer.vocabulary, schema):
            jsonschema.validate(answer, schema)


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def test_sizes_are_bounded():
    bound(nested(rules.DEPTH_LIMIT))
    assert "deep" in refusal(nested(rules.DEPTH_LIMIT + 1))
    assert "deep" in refusal({"const": json.loads("[" * 60 + "]" * 60)})
    assert "properties" in refusal({"properties": {f"p{i}": {} for i in range(257)}})
    assert "values" in refusal({"enum": list(range(1001))})
    assert "values" in refusal({"enum": [list(range(1001))]})
    assert "parts" in refusal({"anyOf": [{}] * 2001})
    assert "definitions" in refusal({"$defs": {f"d{i}": {} for i in range(101)}})
    assert "larger" in refusal({"const": "x" * rules.BYTES_LIMIT})


def test_the_worst_that_is_within_bounds_is_read_at_once():
    """It happens in the gateway's event loop."""
    definitions = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 15} for i in range(99)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, "d99": {}}}
    started = time.perf_counter()
    bound(schema)
    assert time.perf_counter() - started < 1


def test_arguments_are_an_object():
    objects: list[Any] = [{}, {"$defs": {"a": {}}}, {"type": "object"}, {"properties": {}}]
    for schema in objects:
        assert checked_arguments(json.dumps(schema), "f")["type"] == "object"
    recursive = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}
    assert checked_arguments(json.dumps(recursive), "f")
    others: list[Any] = [{"type": "array"}, {"type": ["object", "null"]}, {"anyOf": [{}]}]
    for schema in [*others, {"const": {}}]:
        with pytest.raises(RequestError, match="type 'object'"):
            checked_arguments(json.dumps(schema), "f")
