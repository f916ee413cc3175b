"""A model that says anything it may, and a reader who sees what the caller would."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from shards.constraint import Matcher
from shards.detokenizer import TextStream, Vocabulary

# The ways out of strings, objects, lists and numbers.
_CLOSING = (b'"', b"}", b"]", b",", b":")
_LETTERS = frozenset(bytes([code]) for code in range(0x20, 0x7F))


class Unfinished(Exception):  # noqa: N818
    """The answer went on for longer than the adversary had patience."""


def allowed_ids(mask: bytes, vocabulary: Vocabulary) -> np.ndarray:
    """Ids that a mask allows, ascending; all for an empty one."""
    if not mask:
        return np.arange(len(vocabulary))
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    assert not bits[len(vocabulary) :].any()
    return np.flatnonzero(bits)


def adversarial_answer(
    matcher: Matcher, vocabulary: Vocabulary, seed: int, *, patience: int = 60
) -> tuple[int, ...]:
    """Random allowed tokens until the end of the answer, which it seeks once out of patience.

    Checks on the way that no control id is ever allowed but those of an answer, and something is.
    """
    draw = random.Random(seed)
    control = np.array(sorted(vocabulary.control_ids - vocabulary.answer_ids))
    closing = {i for i, piece in enumerate(vocabulary.pieces) if piece in _CLOSING}
    letters = {i for i, piece in enumerate(vocabulary.pieces) if piece in _LETTERS}
    quote = vocabulary.pieces.index(b'"')
    answer: list[int] = []
    for index in range(40 * patience):
        [mask] = matcher.masks(())
        allowed = allowed_ids(mask, vocabulary)
        assert len(allowed), "nothing may be said"
        assert not (np.isin(control, allowed).any() and mask), "a control id is allowed"
        if index > patience and vocabulary.eos_id in allowed:
            token_id = vocabulary.eos_id
        else:
            some = closing if draw.random() < (0.6 if index > patience else 0.25) else set()
            ways_out = some.intersection(allowed.tolist())
            if index > patience and not ways_out:
                ways_out = letters.intersection(allowed.tolist())
            if index > patience and quote in ways_out and draw.random() < 0.5:
                ways_out = {quote}
            token_id = int(draw.choice(sorted(ways_out) or allowed))
        matcher.accept(token_id)
        if token_id == vocabulary.eos_id:
            return tuple(answer)
        answer.append(token_id)
    raise Unfinished(shown(answer, vocabulary)[-200:])


def shown(token_ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """The text that a caller sees."""
    stream = TextStream(vocabulary)
    return stream.push(token_ids) + stream.finish()
