"""A grammar simple enough to be seen through: letters of given groups, by turns."""

from __future__ import annotations

from collections.abc import Sequence

from tests.shards.engine_fixtures import EOS, VOCAB_SIZE, ids


def mask_of(allowed: Sequence[int]) -> bytes:
    bits = sum(1 << token for token in set(allowed))
    return bits.to_bytes(4 * (-(-VOCAB_SIZE // 32)), "little")


class Turns:
    """Token i of an answer is of group i (and again from the first); it may end after any round.

    ``Turns("ab", "cd")`` says acbd, ad, … but never ab.
    """

    def __init__(self, *groups: str) -> None:
        self._groups = [ids(group) for group in groups]
        self.matchers: list[TurnsMatcher] = []

    def matcher(self) -> TurnsMatcher:
        self.matchers.append(TurnsMatcher(self._groups))
        return self.matchers[-1]


class TurnsMatcher:
    def __init__(self, groups: Sequence[tuple[int, ...]]) -> None:
        self._groups = groups
        self.said: list[int] = []

    def masks(self, drafts: Sequence[int]) -> tuple[bytes, ...]:
        masks = [mask_of(self._allowed(len(self.said)))]
        for place, draft in enumerate(drafts, start=len(self.said)):
            if draft == EOS or draft not in self._allowed(place):
                break
            masks.append(mask_of(self._allowed(place + 1)))
        return tuple(masks)

    def accept(self, token_id: int) -> None:
        assert token_id in self._allowed(len(self.said)), "drawn against its mask"
        self.said.append(token_id)

    def _allowed(self, place: int) -> tuple[int, ...]:
        group = self._groups[place % len(self._groups)]
        ends = (EOS,) if place and place % len(self._groups) == 0 else ()
        return (*group, *ends)
