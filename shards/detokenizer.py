"""From token ids to text, piece by piece. Standard library only.

The text of an id is looked up as bytes, so a character spread over several tokens is shown once
it is whole, and no window of earlier tokens is decoded again. What comes out, put together, is
what mistral-common's ``decode`` makes of all ids at once, for both tokenizer families. One
difference is meant: SentencePiece's <unk> is a control id here and shows nothing (there " ⁇ ").

    ids      [29473, 23325, 1011, 930, 923, 899]         SentencePiece
    pieces   ▁       ▁Hello <F0>  <9F> <98> <80>
    push     ""      " Hello" ""  ""   ""   "😀"          (the first ▁ is no space of the text)
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

_UNDECODABLE = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}


@dataclass(frozen=True, slots=True, repr=False)
class Vocabulary:
    """What must be known of a tokenizer to turn ids into text, and nothing else.

    Attributes:
        pieces: id → bytes of its text; control ids have none.
        control_ids: ids that are structure, not text.
        answer_ids: the control ids an answer may contain: end of sequence and [TOOL_CALLS].
        strip_leading_space: the first piece's space is no part of the text (SentencePiece writes
            one before every text it encodes).
        byte_ids: SentencePiece's pieces for single bytes; empty where all pieces are bytes.
    """

    pieces: tuple[bytes, ...]
    eos_id: int
    control_ids: frozenset[int]
    answer_ids: frozenset[int]
    tool_calls_id: int
    image_id: int
    image_break_id: int
    image_end_id: int
    strip_leading_space: bool
    byte_ids: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.pieces)


class TextStream:
    """The text of one answer while its tokens arrive.

    Args:
        stop: strings that end the text. What precedes the one completed first is shown, it and
            what follows never; text that may still become one is held until that is known.
        continues: the answer goes on from a text that is already there, so its first space counts.

    ``stopped`` is the stop string that ended the text, once one has.
    """

    def __init__(
        self, vocabulary: Vocabulary, stop: Sequence[str] = (), *, continues: bool = False
    ) -> None:
        # SentencePiece shows one U+FFFD per undecodable byte, tekken one per broken character.
        errors = "surrogateescape" if vocabulary.byte_ids else "replace"
        self.stopped: str | None = None
        self._vocabulary = vocabulary
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._strip = vocabulary.strip_leading_space and not continues
        self._held = ""

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that became certain with these tokens; empty once stopped."""
        return self._show("".join(map(self._decode, token_ids)), final=False)

    def finish(self) -> str:
        """The rest: what was held, and U+FFFD for characters that were never completed."""
        return self._show(self._decoder.decode(b"", final=True), final=True)

    def _decode(self, token_id: int) -> str:
        vocabulary = self._vocabulary
        if token_id in vocabulary.control_ids:
            return self._decoder.decode(b"", final=True)
        piece = vocabulary.pieces[token_id]
        if self._strip and piece:
            self._strip = False
            if token_id not in vocabulary.byte_ids:
                piece = piece.removeprefix(b" ")
        return self._decoder.decode(piece)

    def _show(self, text: str, *, final: bool) -> str:
        if self.stopped is not None:
            return ""
        text = self._held + text.translate(_UNDECODABLE)
        end = self._first_stop(text)
        if self.stopped is None and not final:
            end = len(text) - self._undecided(text)
        self._held = text[end:] if self.stopped is None else ""
        return text[:end]

    def _first_stop(self, text: str) -> int:
        """Where the stop string that is completed first begins; the longest, if several end there.

        Sets ``stopped``; the length of the text where there is none.
        """
        found = [
            (start + len(stop), start, stop)
            for stop in self._stop
            if (start := text.find(stop)) >= 0
        ]
        if not found:
            return len(text)
        _, start, self.stopped = min(found)
        return start

    def _undecided(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
