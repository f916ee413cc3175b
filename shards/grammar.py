"""What an answer may say, token by token: ``Grammar`` and ``Matcher`` on xgrammar.

    text                 {"city": "Paris"} eos
    calls                [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …] eos
    calls, not required  anything at all, and from [TOOL_CALLS] on as above

xgrammar sees the text only; [TOOL_CALLS] is a control id and therefore ours.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import xgrammar

from shards.detokenizer import Vocabulary
from shards.errors import QueueFullError, RequestError
from shards.grammar_recipe import Kitchen, Recipe, calls_recipe, text_recipe
from shards.grammar_rehearsal import Rehearsal, TooComplexError
from shards.json_schema import checked_arguments, checked_schema
from shards.request import GrammarSpec

_THREADS_LIMIT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GrammarLimits:
    """What compiling may cost.

    Attributes:
        compile_s: one schema; also how long a request waits while others' are compiled.
        compile_bytes: of working memory.
        grammar_bytes: one compiled grammar.
        cache_bytes, cache_entries: compiled grammars kept, the least recently used go first.
    """

    compile_s: float = 15.0
    compile_bytes: int = 2 << 30
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
        self._known: OrderedDict[GrammarSpec, AnswerGrammar | RequestError] = OrderedDict()

    def compile(self, spec: GrammarSpec) -> AnswerGrammar:
        """Takes up to twice ``compile_s``: call it where that stalls nobody.

        Raises:
            RequestError: a schema that cannot be promised, or is too complex (field named).
            QueueFullError: others' schemas are being compiled.
        """
        outcome = self._recall(spec)
        if outcome is None:
            try:
                outcome = self._compile(spec)
            except RequestError as error:
                outcome = error
            self._remember(spec, outcome)
        if isinstance(outcome, RequestError):
            raise RequestError(outcome.param, outcome.message)
        return outcome

    def close(self) -> None:
        """Nothing may be compiling."""
        self._rehearsal.close()

    @property
    def cached_bytes(self) -> int:
        with self._known_lock:
            return sum(map(_size, self._known.values()))

    def _compile(self, spec: GrammarSpec) -> AnswerGrammar:
        text = calls = None
        # After [TOOL_CALLS] a text begins anew; one that continues another has no space before it.
        space = self._vocabulary.strip_leading_space
        if spec.text is not None:
            rules = spec.text
            schema, param = None, None
            if rules.schema is not None:
                schema, param = (
                    checked_schema(rules.schema, rules.param, closed=rules.closed),
                    rules.param,
                )
            text = self._cook(text_recipe(schema, space=space and not spec.prefix), param)
        if spec.calls is not None:
            schemas = {
                tool.name: checked_arguments(tool.schema, tool.param)
                for tool in spec.calls.tools
                if tool.schema is not None
            }
            params = [tool.param for tool in spec.calls.tools if tool.schema is not None]
            param = None if not params else params[0] if len(params) == 1 else "tools"
            calls = self._cook(calls_recipe(spec.calls, schemas, space=space), param)
        grammar = AnswerGrammar(
            self._vocabulary,
            text=text,
            calls=calls,
            required=spec.calls is not None and spec.calls.required,
            prefix=spec.prefix,
        )
        grammar.matcher()
        return grammar

    def _cook(self, recipe: Recipe, param: str | None) -> xgrammar.CompiledGrammar:
        """``param`` holds the schema; None where the recipe is all ours and needs no rehearsal."""
        if param is None:
            return self._kitchen.compiled(recipe)
        if not self._stage.acquire(timeout=self._limits.compile_s):
            raise QueueFullError("other requests' schemas are being compiled")
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
        finally:
            self._stage.release()

    def _recall(self, spec: GrammarSpec) -> AnswerGrammar | RequestError | None:
        with self._known_lock:
            outcome = self._known.get(spec)
            if outcome is not None:
                self._known.move_to_end(spec)
            return outcome

    def _remember(self, spec: GrammarSpec, outcome: AnswerGrammar | RequestError) -> None:
        limits = self._limits
        with self._known_lock:
            self._known[spec] = outcome
            held = sum(map(_size, self._known.values()))
            while held > limits.cache_bytes or len(self._known) > limits.cache_entries:
                _, dropped = self._known.popitem(last=False)
                held -= _size(dropped)


class AnswerGrammar:
    """A compiled spec.

    Raises:
        RequestError: the text that the answer continues does not conform (from ``matcher``).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        text: xgrammar.CompiledGrammar | None,
        calls: xgrammar.CompiledGrammar | None,
        required: bool,
        prefix: str,
    ) -> None:
        self.vocabulary = vocabulary
        self.text = text
        self.calls = calls
        self.required = required
        self._prefix = prefix
        # The space that SentencePiece writes first is no part of the text; its byte piece is.
        self.shown_spaces = frozenset(
            token_id for token_id in vocabulary.byte_ids if vocabulary.pieces[token_id] == b" "
        )

    @property
    def size(self) -> int:
        return sum(part.memory_size_bytes for part in (self.text, self.calls) if part is not None)

    def matcher(self) -> AnswerMatcher:
        text = None
        if self.text is not None and not self.required:
            text = xgrammar.GrammarMatcher(self.text)
            if not text.accept_string(self._prefix):
                raise RequestError(
                    "messages", "the text to be continued does not begin what was asked for"
                )
        return AnswerMatcher(self, text, begun=bool(self._prefix))


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


def _size(outcome: AnswerGrammar | RequestError) -> int:
    return outcome.size if isinstance(outcome, AnswerGrammar) else 0
