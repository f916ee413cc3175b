"""The calls an assistant makes, read while it writes them after [TOOL_CALLS]. Standard library.

    [{"name": "weather", "arguments": {"city": "Paris"}}, …]
              call begins ┘         └ shown as it comes ┘

A call begins once its name and the start of its arguments are known; from then on its arguments
are passed on as they were written. Text in which no call begins is text after all. Read in any
pieces, a text gives the same. What it asks of arguments is that they are an object as far as
strings and brackets go: that they are JSON is the grammar's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from shards.tool_calls import tool_call_id

_SPACE = " \t\n\r"
_PAIRS = {"{": "}", "[": "]"}


@dataclass(frozen=True, slots=True)
class CallPart:
    """More of a call: the first part has ``id`` and ``name``, the last one says so.

    Attributes:
        index: of the call in the answer.
        arguments: JSON text, to be put together.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    last: bool = False


def joined_parts(parts: Iterable[CallPart]) -> tuple[CallPart, ...]:
    """One part per call, by call."""
    calls: dict[int, list[CallPart]] = {}
    for part in parts:
        calls.setdefault(part.index, []).append(part)
    return tuple(
        replace(
            calls[index][0],
            arguments="".join(part.arguments for part in calls[index]),
            last=calls[index][-1].last,
        )
        for index in sorted(calls)
    )


class _Expects(Enum):
    LIST = auto()
    CALL = auto()
    KEY = auto()
    FIRST_KEY = auto()
    COLON = auto()
    VALUE = auto()
    KEY_OR_END = auto()
    CALL_OR_END = auto()
    NOTHING = auto()


class CallReader:
    """Reads one list of calls.

    Args:
        seed: names the answer (request id and choice). Ids follow from it and a call's place, so
            that a replay gives the same; those the model writes come too late to be used.

    Attributes:
        begun: how many calls have begun.
        whole: the list was closed, so all of its calls are complete.
        broken: it is no list of calls, or nothing more of one; the rest is text.
    """

    def __init__(self, seed: str) -> None:
        self.begun = 0
        self.whole = False
        self.broken = False
        self._seed = seed
        self._expects = _Expects.LIST
        # What is read and not shown; text, if it turns out that no call comes of it.
        self._held: list[str] = []
        self._value: _Value | None = None
        self._call = _Call()
        self._key = ""

    def push(self, text: str) -> tuple[str, list[CallPart]]:
        """What is certain with this: text that is no call, and at most one part of each call."""
        news: list[_Call] = []
        rest = ""
        for place, character in enumerate(text):
            if self.broken:
                rest = text[place:]
                break
            self._read(character, news)
        parts = [call.part(self._seed) for call in news]
        return self._let_go() + rest if self.broken else "", parts

    def finish(self) -> str:
        """The rest, as text: all of it where no call has begun."""
        return "" if self.begun else self._let_go()

    def _let_go(self) -> str:
        held = "".join(self._held)
        self._held.clear()
        return held

    def _read(self, character: str, news: list[_Call]) -> None:
        self._held.append(character)
        if self._value is not None:
            self._read_value(self._value, character, news)
        elif character not in _SPACE:
            self._expect(character, news)

    def _expect(self, character: str, news: list[_Call]) -> None:
        match self._expects, character:
            case _Expects.LIST, "[":
                self._expects = _Expects.CALL
            case _Expects.CALL, "{":
                self._call = _Call()
                self._expects = _Expects.FIRST_KEY
            case ((_Expects.KEY | _Expects.FIRST_KEY), '"'):
                self._value = _Value(character)
            case _Expects.COLON, ":":
                self._expects = _Expects.VALUE
            case _Expects.VALUE, _:
                self._begin_value(character, news)
            case _Expects.KEY_OR_END, ",":
                self._expects = _Expects.KEY
            case _Expects.KEY_OR_END, "}" if self._call.begun:
                self._expects = _Expects.CALL_OR_END
            case _Expects.CALL_OR_END, ",":
                self._expects = _Expects.CALL
            case _Expects.CALL_OR_END, "]":
                self._expects = _Expects.NOTHING
                self.whole = True
                self._held.clear()
            case _:
                self.broken = True

    def _begin_value(self, character: str, news: list[_Call]) -> None:
        self._value = _Value(character)
        if self._key == "arguments":
            if character not in '{"':
                self.broken = True
            elif character == "{":
                self._call.arguments.append(character)
                self._show(news)

    def _read_value(self, value: _Value, character: str, news: list[_Call]) -> None:
        """A key's or a value's next character, or the first after a number or word."""
        ended = value.read(character)
        streams = self._expects is _Expects.VALUE and self._key == "arguments" and value.is_object
        if streams and not value.broken:
            self._call.arguments.append(character)
            self._call.ended = ended
            self._show(news)
        if value.broken:
            self.broken = True
        elif ended:
            self._value = None
            if self._expects is _Expects.VALUE:
                self._expects = _Expects.KEY_OR_END
                self._keep(value, news)
                if not value.closed_itself and not self.broken and character not in _SPACE:
                    self._expect(character, news)
            else:
                key = value.decoded()
                self.broken = not isinstance(key, str) or key in self._call.keys
                self._key = str(key)
                self._call.keys.add(self._key)
                self._expects = _Expects.COLON

    def _keep(self, value: _Value, news: list[_Call]) -> None:
        """Take in a value that is complete."""
        if value.broken_inside:
            self.broken = True
        elif self._key == "name":
            name = value.decoded()
            if isinstance(name, str) and name and _encodable(name):
                self._call.name = name
                self._show(news)
            else:
                self.broken = True
        elif self._key == "arguments" and not value.is_object:
            arguments = value.decoded()
            if isinstance(arguments, str) and _encodable(arguments):
                self._call.arguments.append(arguments)
                self._call.ended = True
                self._show(news)
            else:
                self.broken = True

    def _show(self, news: list[_Call]) -> None:
        """There is more to pass on of the call, once it is one."""
        call = self._call
        if not call.name or not call.arguments:
            return
        if not call.begun:
            call.begun, call.index = True, self.begun
            self.begun += 1
        self._held.clear()
        if call not in news[-1:]:
            news.append(call)


class _Call:
    """What is known of a call; ``arguments`` are those not passed on yet."""

    def __init__(self) -> None:
        self.name = ""
        self.arguments: list[str] = []
        self.ended = False
        self.begun = False
        self.index = 0
        self.keys: set[str] = set()
        self._named = False

    def part(self, seed: str) -> CallPart:
        arguments = "".join(self.arguments)
        self.arguments.clear()
        if self._named:
            return CallPart(self.index, arguments=arguments, last=self.ended)
        self._named = True
        call_id = tool_call_id(f"{seed}:{self.index}")
        return CallPart(self.index, call_id, self.name, arguments, self.ended)


class _Value:
    """One JSON value's text, followed by strings and brackets to its end."""

    def __init__(self, first: str) -> None:
        self.broken = False
        self.is_object = first == "{"
        self.closed_itself = first in '{["'
        self._text = [first]
        self._brackets = [_PAIRS[first]] if first in _PAIRS else []
        self._in_string = first == '"'
        self._escaped = False

    def read(self, character: str) -> bool:
        """Whether the value ends with this character, or has ended before it."""
        if not self.closed_itself and character in ",}]" + _SPACE:
            return True
        if not self.is_object:
            self._text.append(character)
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
                return not self._brackets
            return False
        if character == '"':
            self._in_string = True
        elif character in _PAIRS:
            self._brackets.append(_PAIRS[character])
        elif character in "}]":
            if not self._brackets or self._brackets.pop() != character:
                self.broken = True
            return not self._brackets
        return False

    @property
    def broken_inside(self) -> bool:
        """Whether it is no JSON; an object's text is not kept and so not looked at."""
        return not self.is_object and self.decoded() is None and self._text != list("null")

    def decoded(self) -> object:
        """None for what is no JSON."""
        try:
            value: object = json.loads("".join(self._text))
        except (ValueError, RecursionError):
            return None
        return value


def _encodable(text: str) -> bool:
    """JSON can say half of a surrogate pair; no answer can carry it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
