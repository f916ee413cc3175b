"""Dialogues as token ids: as the server lays them out, in a vocabulary cut to what is ever said."""

from __future__ import annotations

import string
from collections.abc import Iterable
from functools import cached_property
from importlib.resources import as_file, files

from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

from ops.nano.drawing.chart import FAMILIES
from ops.nano.drawing.labels import CHARACTERS
from ops.nano.drawing.receipt import GOODS
from ops.nano.questions.turn import Turn
from shards.grid import Grid

BEGIN, END, ASK, ANSWER = 1, 2, 3, 4
IMAGE, IMAGE_BREAK, IMAGE_END = 10, 14, 15
_FILE = "mistral_instruct_tokenizer_241114.model.v7m1"
_SPACE = "▁"


class DialogueTokens:
    """Ids of Pixtral Large's tokenizer."""

    @cached_property
    def _raw(self) -> SentencePieceTokenizer:
        with as_file(files("mistral_common").joinpath("data", _FILE)) as file:
            return SentencePieceTokenizer(file)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: token for token, piece in enumerate(self._raw.vocab())}

    def pictures(self, grids: Iterable[Grid]) -> list[int]:
        return [token for grid in grids for token in grid.token_ids(IMAGE, IMAGE_BREAK, IMAGE_END)]

    def text(self, words: str) -> list[int]:
        ids: list[int] = self._raw.encode(words, bos=False, eos=False)
        return ids

    def answer(self, turn: Turn) -> list[int]:
        """What is copied from the picture is spelled letter by letter, the rest is as usual.

        It decodes to the same text, and a letter is easier to see than a word is to know.
        """
        ids: list[int] = []
        rest, first = turn.answer, True
        for part in turn.spelled:
            before, _, rest = rest.partition(part)
            ids += self._piece(before, first=first)
            # A word that nothing stands before begins with the space that all answers begin with.
            if not ids:
                ids.append(self._id(_SPACE))
            ids += [self._id(letter) for letter in part]
            first = False
        return ids + self._piece(rest, first=first)

    def _piece(self, words: str, *, first: bool) -> list[int]:
        """``words`` as they stand inside an answer: without the space that SentencePiece adds."""
        if not words:
            return []
        if first:
            return self.text(words)
        if words.isspace():
            return [self._id(_SPACE)]
        mark = self.text(";")
        return self.text(f";{words}")[len(mark) :]

    def _id(self, piece: str) -> int:
        """Raises KeyError: ``piece`` is no single token."""
        return self._ids[piece]

    def alphabet(self) -> set[int]:
        """Ids that are needed whatever is drawn."""
        needed = {BEGIN, END, ASK, ANSWER, IMAGE, IMAGE_BREAK, IMAGE_END}
        needed |= {self._id(letter) for letter in (_SPACE, *CHARACTERS)}
        named = [*GOODS, *(label for family in FAMILIES for label in family)]
        named += list(string.ascii_letters)
        for word in named:
            for form in (word, word.lower(), word.capitalize(), word.upper()):
                needed.update(self.text(form))
        return needed
