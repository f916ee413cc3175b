"""What an answer may say, token by token: ``Grammar`` and ``Matcher`` on xgrammar.

    text                 {"city": "Paris"} eos
    calls                [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …] eos
    calls, not required  anything at all, and from [TOOL_CALLS] on as above

xgrammar sees the text only; [TOOL_CALLS] is a control id and therefore ours.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import xgrammar

from shards.detokenizer import Vocabulary
from shards.errors import RequestError
from shards.grammar_recipe import Kitchen, Recipe, calls_recipe, text_recipe
from shards.grammar_rehearsal import Rehearsal, TooComplexError
from shards.json_schema import checked_arguments, checked_schema
from shards.request import CallRules, GrammarSpec, TextRules

_THREADS_LIMIT = 8
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
# Of a grammar or a refusal in the cache, beside its schemas and what xgrammar takes.
_ENTRY_BYTES = 512
# What is compiled for a spec: its rules, and whether the text may have a space before it.
_Key = tuple[TextRules | None, CallRules | None, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """What compiling may cost.

    Attributes:
        compile_s: CPU time of one schema.
        compile_bytes: of working memory.
        grammar_bytes: one compiled grammar.
        cache_bytes, cache_entries: grammars and refusals kept with their schemas; the least
            recently used go first.
    """

    compile_s: float = 15.0
    compile_bytes: int = 1 << 30
    grammar_bytes: int = 64 << 20
    cache_bytes: int = 256 << 20
    cache_entries: int = 256


class GrammarCompiler:
    """Compiles specs for one vocabulary, a caller's schemas one at a time; remembers refusals too.

    May be shared by threads. ``close`` ends the process it may have started.
    """

    def __init__(self, vocabulary: Vocabulary, limits: GrammarLimits | None = None) -> None:
        self._vocabulary = vocabulary
        self._limits = limits = limits or GrammarLimits()
        threads = min(_THREADS_LIMIT, os.cpu_count() or 1)
        self._kitchen = Kitchen(vocabulary, threads)
        self._rehearsal = Rehearsal(
            vocabulary,
            threads=threads,
            timeout_s=limits.compile_s,
            memory_bytes=limits.compile_bytes,
        )
        self._stage = threading.Lock()
        self._known_lock = threading.Lock()
        self._known: OrderedDict[_Key, AnswerGrammar | RequestError] = OrderedDict()

    def known(self, spec: GrammarSpec) -> AnswerGrammar | None:
        """What was compiled before, for any prefix and bound to none; waits for nothing.

        Raises:
            RequestError: it was refused before.
        """
        outcome = self._recall(self._key(spec))
        if isinstance(outcome, RequestError):
            raise RequestError(outcome.param, outcome.message)
        return outcome

    def compile(self, spec: GrammarSpec) -> AnswerGrammar:
        """Takes up to twice ``compile_s``, or waits as long as others': call it off the loop.

        Raises:
            RequestError: a schema that cannot be promised, or is too complex (field named), or the
                prefix does not conform.
            QueueFullError: it could not be compiled just now.
        """
        grammar = self.known(spec)
        if grammar is None:
            grammar = self._staged(spec) if spec.has_schema else self._compiled(spec)
        return grammar.continuing(spec.prefix) if spec.prefix else grammar

    def close(self) -> None:
        """Nothing may be compiling."""
        self._rehearsal.close()

    @property
    def cached_bytes(self) -> int:
        with self._known_lock:
            return self._held()

    def _key(self, spec: GrammarSpec) -> _Key:
        # A text that continues another has no space before it.
        space = self._vocabulary.strip_leading_space and not spec.prefix
        return (spec.text, spec.calls, space and spec.text is not None)

    def _staged(self, spec: GrammarSpec) -> AnswerGrammar:
        """One at a time; whoever waited for the same one finds it."""
        with self._stage:
            return self.known(spec) or self._compiled(spec)

    def _compiled(self, spec: GrammarSpec) -> AnswerGrammar:
        try:
            grammar = self._compile(spec)
        except RequestError as error:
            self._remember(self._key(spec), error)
            raise
        self._remember(self._key(spec), grammar)
        return grammar

    def _compile(self, spec: GrammarSpec) -> AnswerGrammar:
        text = calls = None
        if spec.text is not None:
            rules = spec.text
            schema, param = None, None
            if rules.schema is not None:
                schema, param = (
                    checked_schema(rules.schema, rules.param, closed=rules.closed),
                    rules.param,
                )
            _, _, space = self._key(spec)
            text = self._cook(text_recipe(schema, space=space), param)
        if spec.calls is not None:
            schemas = {
                tool.name: checked_arguments(tool.schema, tool.param)
                for tool in spec.calls.tools
                if tool.schema is not None
            }
            params = [tool.param for tool in spec.calls.tools if tool.schema is not None]
            param = None if not params else params[0] if len(params) == 1 else "tools"
            # After [TOOL_CALLS] a text begins anew.
            space = self._vocabulary.strip_leading_space
            calls = self._cook(calls_recipe(spec.calls, schemas, space=space), param)
        return AnswerGrammar(
            self._vocabulary,
            text=text,
            calls=calls,
            required=spec.calls is not None and spec.calls.required,
        )

    def _cook(self, recipe: Recipe, param: str | None) -> xgrammar.CompiledGrammar:
        """``param`` holds the schema; None where the recipe is all ours and needs no rehearsal."""
        if param is None:
            return self._kitchen.compiled(recipe)
        try:
            size = self._rehearsal.survive(recipe)
            if size > self._limits.grammar_bytes:
                raise TooComplexError(f"takes more than {self._limits.grammar_bytes} bytes")
            return self._kitchen.compiled(recipe)
        except TooComplexError as error:
            raise RequestError(param, f"the schema {error}; make it smaller") from None
        except ValueError:
            # xgrammar's own words quote the schema and its source files.
            raise RequestError(param, "the schema allows nothing that could be written") from None

    def _recall(self, key: _Key) -> AnswerGrammar | RequestError | None:
        with self._known_lock:
            outcome = self._known.get(key)
            if outcome is not None:
                self._known.move_to_end(key)
            return outcome

    def _remember(self, key: _Key, outcome: AnswerGrammar | RequestError) -> None:
        limits = self._limits
        with self._known_lock:
            self._known[key] = outcome
            held = self._held()
            while held > limits.cache_bytes or len(self._known) > limits.cache_entries:
                held -= _size(*self._known.popitem(last=False))

    def _held(self) -> int:
        return sum(_size(key, outcome) for key, outcome in self._known.items())


class AnswerGrammar:
    """A compiled spec."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        text: xgrammar.CompiledGrammar | None,
        calls: xgrammar.CompiledGrammar | None,
        required: bool,
    ) -> None:
        self.vocabulary = vocabulary
        self.text = text
        self.calls = calls
        self.required = required
        parts = (part for part in (text, calls) if part is not None)
        self.size: int = sum(part.memory_size_bytes for part in parts)
        self._continued = False
        # Stands after the text that is continued; every choice begins as its fork.
        self._begun: xgrammar.GrammarMatcher | None = None
        # The space that SentencePiece writes first is no part of the text; its byte piece is.
        self.shown_spaces = frozenset(
            token_id for token_id in vocabulary.byte_ids if vocabulary.pieces[token_id] == b" "
        )
        # Characters that JSON has no place for inside a string, and hardly a use for outside:
        # xgrammar lets strings of bounded length hold them. A line break it keeps apart itself.
        self.unwritable = frozenset(
            token_id for token_id, piece in enumerate(vocabulary.pieces) if _CONTROL.search(piece)
        )
        # The other ids, as a mask.
        self.writable = np.full((1, -(-len(vocabulary) // 32)), -1, np.int32)
        for token_id in self.unwritable:
            _clear(self.writable, token_id)

    def continuing(self, prefix: str) -> AnswerGrammar:
        """The same for answers that go on from ``prefix``, which is read here and only once.

        Raises:
            RequestError: the prefix does not conform.
        """
        bound = copy(self)
        bound._continued = True
        if self.text is not None and not self.required:
            bound._begun = xgrammar.GrammarMatcher(self.text)
            if not bound._begun.accept_string(prefix):
                raise RequestError(
                    "messages", "the text to be continued does not begin what was asked for"
                )
        return bound

    def matcher(self) -> AnswerMatcher:
        text = None
        if self._begun is not None:
            text = self._begun.fork()
        elif self.text is not None and not self.required:
            text = xgrammar.GrammarMatcher(self.text)
        return AnswerMatcher(self, text, begun=self._continued)


class _Place(Enum):
    START = auto()
    TEXT = auto()
    CALLS = auto()
    ENDED = auto()


@dataclass(frozen=True, slots=True)
class _State:
    """Where an answer stands; ``machine`` follows what it says there, None where that is free."""

    place: _Place
    machine: xgrammar.GrammarMatcher | None


class AnswerMatcher:
    """One choice's place in an answer's grammar."""

    def __init__(
        self, grammar: AnswerGrammar, text: xgrammar.GrammarMatcher | None, *, begun: bool
    ) -> None:
        self._grammar = grammar
        self._begun = begun
        self._state = _State(_Place.START, text)

    def masks(self, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """See ``Matcher``."""
        masks = [self._mask()]
        undone: list[tuple[_State, bool]] = []
        for draft in drafts:
            before = self._state
            # Nothing follows the end, so to draft it gains nothing.
            if draft == self._grammar.vocabulary.eos_id or not self._advance(draft):
                break
            undone.append((before, self._state.machine is before.machine))
            masks.append(self._mask())
        for before, fed in reversed(undone):
            if fed and before.machine is not None:
                before.machine.rollback(1)
            self._state = before
        return tuple(masks)

    def accept(self, token_id: int) -> None:
        """Raises ValueError for a token that no mask allowed: the ranks did not apply it."""
        if not self._advance(token_id):
            raise ValueError(f"token {token_id} was drawn although the grammar forbids it")

    def _advance(self, token_id: int) -> bool:
        """Move on, or stay and say so. A machine that stays the same has taken the token in."""
        grammar, state = self._grammar, self._state
        vocabulary = grammar.vocabulary
        if state.place is _Place.ENDED:
            return False
        if token_id == vocabulary.tool_calls_id and self._may_call:
            assert grammar.calls is not None
            self._state = _State(_Place.CALLS, xgrammar.GrammarMatcher(grammar.calls))
            return True
        if state.place is _Place.START and (
            grammar.required or (not self._begun and token_id in self._stray)
        ):
            return False
        if state.machine is not None and (
            # It would warn of control ids, each time, in words of its own.
            (token_id in vocabulary.control_ids and token_id != vocabulary.eos_id)
            or token_id in grammar.unwritable
            or not state.machine.accept_token(token_id)
        ):
            return False
        if token_id == vocabulary.eos_id:
            self._state = _State(_Place.ENDED, state.machine)
        elif state.place is _Place.START:
            self._state = _State(_Place.TEXT, state.machine)
        return True

    @property
    def _may_call(self) -> bool:
        grammar, place = self._grammar, self._state.place
        if grammar.calls is None or place in (_Place.CALLS, _Place.ENDED):
            return False
        return place is _Place.START or grammar.text is None

    @property
    def _stray(self) -> frozenset[int]:
        return self._grammar.shown_spaces if self._grammar.text is not None else frozenset()

    def _mask(self) -> bytes:
        grammar, state = self._grammar, self._state
        vocabulary = grammar.vocabulary
        words = np.zeros((1, -(-len(vocabulary) // 32)), np.int32)
        if state.place is _Place.ENDED:
            _set(words, vocabulary.eos_id)
        elif state.place is _Place.START and grammar.required:
            _set(words, vocabulary.tool_calls_id)
        elif state.machine is None:
            return b""
        else:
            state.machine.fill_next_token_bitmask(words)
            words &= grammar.writable
            if state.place is _Place.START:
                if not self._begun:
                    for token_id in self._stray:
                        _clear(words, token_id)
                if self._may_call:
                    _set(words, vocabulary.tool_calls_id)
        return words.tobytes()


def _set(words: Any, token_id: int) -> None:
    words.view(np.uint32)[0, token_id >> 5] |= np.uint32(1 << (token_id & 31))


def _clear(words: Any, token_id: int) -> None:
    words.view(np.uint32)[0, token_id >> 5] &= np.uint32(~(1 << (token_id & 31)) & 0xFFFFFFFF)


def _size(key: _Key, outcome: AnswerGrammar | RequestError) -> int:
    text, calls, _ = key
    words = "" if text is None else text.schema or ""
    tools = () if calls is None else calls.tools
    named = sum(len(tool.name) + len(tool.param) + len(tool.schema or "") for tool in tools)
    compiled = outcome.size if isinstance(outcome, AnswerGrammar) else 0
    return _ENTRY_BYTES + len(words) + named + compiled
