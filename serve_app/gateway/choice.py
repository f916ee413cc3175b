"""One choice of an answer: its tokens in, what the caller is shown out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shards.conversation import ToolCall
from shards.detokenizer import TextStream, Vocabulary
from shards.request import Delta, FinishReason, TokenLogprob
from shards.tool_calls import parse_tool_calls


class Finish(StrEnum):
    """Why a choice ended, in Mistral's words; OpenAI has no MODEL_LENGTH."""

    STOP = "stop"
    LENGTH = "length"
    MODEL_LENGTH = "model_length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one delta adds to a choice. Tool calls come whole, with the finish."""

    choice: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish: Finish | None = None

    @property
    def silent(self) -> bool:
        """Nothing to show: the tokens are part of a character, a stop string or a tool call."""
        return not (self.text or self.logprobs or self.tool_calls or self.finish)


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What the choices of one answer have in common.

    Attributes:
        prefix: text that the answer continues; it is shown first, as Mistral's API does.
        offers_tools: whether [TOOL_CALLS] begins calls; without tools it is a token like another.
        at_limit: what running out of tokens is called.
    """

    request_id: str
    vocabulary: Vocabulary
    stop: tuple[str, ...] = ()
    prefix: str = ""
    offers_tools: bool = False
    at_limit: Finish = Finish.LENGTH


class ChoiceReader:
    """Keeps one choice's text and call state. What follows [TOOL_CALLS] is held until the end."""

    def __init__(self, choice: int, rules: ReadingRules) -> None:
        self._choice = choice
        self._rules = rules
        self._text = TextStream(rules.vocabulary, rules.stop, continues=bool(rules.prefix))
        self._unshown_prefix = rules.prefix
        self._calling = False
        self._call_text = ""
        self._call_logprobs: tuple[TokenLogprob, ...] = ()

    def read(self, delta: Delta) -> Piece:
        text, self._unshown_prefix = self._unshown_prefix, ""
        token_ids, logprobs = delta.token_ids, _content_logprobs(delta)
        if not self._calling:
            cut = self._call_start(token_ids)
            text += self._text.push(token_ids[:cut])
            shown, held = logprobs[:cut], logprobs[cut + 1 :]
            if cut < len(token_ids):
                text += self._text.finish()
                self._text = TextStream(self._rules.vocabulary, self._rules.stop, continues=True)
                self._calling = True
            token_ids = token_ids[cut + 1 :]
        else:
            shown, held = (), logprobs
        if self._calling:
            self._call_text += self._text.push(token_ids)
            self._call_logprobs += held
        if delta.finish_reason is None:
            return Piece(self._choice, text, shown)
        return self._end(text, shown, delta.finish_reason)

    def _call_start(self, token_ids: tuple[int, ...]) -> int:
        """Where [TOOL_CALLS] stands; the length where it does not."""
        calls_id = self._rules.vocabulary.tool_calls_id
        if self._rules.offers_tools and calls_id in token_ids:
            return token_ids.index(calls_id)
        return len(token_ids)

    def _end(self, text: str, shown: tuple[TokenLogprob, ...], reason: FinishReason) -> Piece:
        finish = Finish.STOP if reason is FinishReason.STOP else self._rules.at_limit
        rest = self._text.finish()
        if not self._calling:
            return Piece(self._choice, text + rest, shown, finish=finish)
        call_text = self._call_text + rest
        calls = parse_tool_calls(call_text, f"{self._rules.request_id}:{self._choice}")
        if calls is None:
            shown += self._call_logprobs
            return Piece(self._choice, text + call_text, shown, finish=finish)
        return Piece(self._choice, text, shown, calls, Finish.TOOL_CALLS)


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """One piece per choice, by choice."""
    by_choice: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_choice.setdefault(piece.choice, []).append(piece)
    return [_joined(by_choice[choice]) for choice in sorted(by_choice)]


def _joined(pieces: Sequence[Piece]) -> Piece:
    return Piece(
        pieces[0].choice,
        text="".join(piece.text for piece in pieces),
        logprobs=tuple(entry for piece in pieces for entry in piece.logprobs),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        finish=pieces[-1].finish,
    )


def _content_logprobs(delta: Delta) -> tuple[TokenLogprob, ...]:
    """Without the end-of-sequence or stop token, which is no content."""
    if delta.finish_reason is FinishReason.STOP and not isinstance(delta.stop, str):
        return delta.logprobs[:-1]
    return delta.logprobs
