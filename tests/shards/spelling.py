"""Text as token ids, without a tokenizer's merges."""

from __future__ import annotations

from shards.detokenizer import Vocabulary


def spell(text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Token ids whose pieces make up ``text``, longest pieces first."""
    ids = {piece: token_id for token_id, piece in enumerate(vocabulary.pieces) if piece}
    rest, spelled = (b" " if vocabulary.strip_leading_space else b"") + text.encode(), []
    while rest:
        length = next(n for n in range(min(16, len(rest)), 0, -1) if rest[:n] in ids)
        spelled.append(ids[rest[:length]])
        rest = rest[length:]
    return tuple(spelled)
