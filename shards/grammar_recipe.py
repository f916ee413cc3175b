"""What xgrammar is told: a vocabulary, and the grammar of a text or of a list of calls.

Every id is given to xgrammar as the bytes of its text, whichever tokenizer it is of (see
``Vocabulary``), and control ids as no bytes at all: those match nothing, so no grammar can ever
allow one, and the grammar's idea of an answer's text is the detokenizer's own. The end of sequence
is allowed where a grammar is complete, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xgrammar

from shards.detokenizer import Vocabulary
from shards.request import CallRules

# Between two JSON tokens: room for a line break and indentation, but not for a model that is lost.
WHITESPACE_LIMIT = 16
_ANY_OBJECT: Mapping[str, Any] = {"type": "object", "additionalProperties": True}
# SentencePiece writes a space before every text that it encodes.
_SPACE = 'root ::= " "?'


@dataclass(frozen=True, slots=True)
class Recipe:
    """One grammar, ready to be compiled.

    Attributes:
        tag: xgrammar's structural tag, as JSON.
        space: whether one space may come first.
    """

    tag: str
    space: bool


def text_recipe(schema: Mapping[str, Any] | None, *, space: bool) -> Recipe:
    """JSON that conforms to a bound schema (see json_schema.py), or any object."""
    return _recipe(_json(_ANY_OBJECT if schema is None else schema), space)


def calls_recipe(
    rules: CallRules, schemas: Mapping[str, Mapping[str, Any]], *, space: bool
) -> Recipe:
    """``[{"name": "f", "arguments": {…}}, …]``, spaced as the model has learnt it; no ids.

    Args:
        schemas: of the arguments, bound, by the tool's name; any object for those left out.
    """
    calls = {
        "type": "tags_with_separator",
        "tags": [
            {
                "type": "tag",
                "begin": f'{{"name": {json.dumps(tool.name)}, "arguments": ',
                "content": _json(schemas.get(tool.name, _ANY_OBJECT)),
                "end": "}",
            }
            for tool in rules.tools
        ],
        "separator": ", ",
        "at_least_one": True,
        "stop_after_first": not rules.parallel,
    }
    return _recipe({"type": "sequence", "elements": [_word("["), calls, _word("]")]}, space)


class Kitchen:
    """Compiles recipes for one vocabulary. May be shared by threads."""

    def __init__(self, vocabulary: Vocabulary, threads: int) -> None:
        self._compiler = xgrammar.GrammarCompiler(
            vocabulary_info(vocabulary), max_threads=threads, cache_enabled=False
        )

    def compiled(self, recipe: Recipe) -> xgrammar.CompiledGrammar:
        """Releases the GIL while it works.

        Raises:
            RuntimeError: xgrammar's own refusal.
        """
        grammar = xgrammar.Grammar.from_structural_tag(recipe.tag)
        if recipe.space:
            grammar = xgrammar.Grammar.concat(xgrammar.Grammar.from_ebnf(_SPACE), grammar)
        return self._compiler.compile_grammar(grammar)


def vocabulary_info(vocabulary: Vocabulary) -> xgrammar.TokenizerInfo:
    """The mapping from ids to bytes, for both tokenizers."""
    return xgrammar.TokenizerInfo(
        [
            b"" if token_id in vocabulary.control_ids else piece
            for token_id, piece in enumerate(vocabulary.pieces)
        ],
        xgrammar.VocabType.RAW,
        vocab_size=len(vocabulary),
        stop_token_ids=[vocabulary.eos_id],
    )


def _recipe(form: Mapping[str, Any], space: bool) -> Recipe:
    tag = {"type": "structural_tag", "format": form}
    return Recipe(json.dumps(tag, ensure_ascii=False), space)


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": WHITESPACE_LIMIT}


def _word(text: str) -> dict[str, Any]:
    return {"type": "const_string", "value": text}
