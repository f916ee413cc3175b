"""Guesses the tokens to come from what was said before. Standard library only.

Prompt lookup: what followed the last tokens where they stood before is likely to follow again, in
answers that quote, correct or continue their prompt. It costs no second model, and being wrong
costs rows of a step, never a different answer.

    tokens     t h e   c a t   s a t .   T h e   c a
    match      . . .   c a            as long as possible, the most recent of equals
    drafts             . . t   s a    no more than the match is long: trust grows with it
"""

from __future__ import annotations

from collections.abc import Sequence

# Two tokens recur by chance too often.
MIN_MATCH = 3
MAX_MATCH = 16
# Earlier places that are compared, latest first.
_CANDIDATES = 8
# Tokens learned in a step, of all choices: long prompts found in the cache are learned in parts, so
# that no step waits for them.
LEARN_LIMIT = 8192

# Acceptance is averaged over about five guesses, and below this share it is not worth the rows.
_MEMORY = 0.8
_LEAST_ACCEPTED = 0.3
_FIRST_PAUSE, _LAST_PAUSE = 16, 256


class Proposer:
    """Proposes drafts for one choice; rests while its proposals are refused, ever longer.

    All is O(1) per token: an index of the last place of each run of ``MIN_MATCH`` tokens, and for
    each place the one before it with the same run.
    """

    def __init__(self) -> None:
        self._tokens: list[int] = []
        # Run of MIN_MATCH ids, packed → the place after its last occurrence
        self._latest: dict[int, int] = {}
        # Place → the place before it after the same run; 0 for none
        self._earlier: list[int] = [0]
        self._run = 0
        self._accepted = 1.0
        self._pause = _FIRST_PAUSE
        self._resting = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def learn(self, tokens: Sequence[int]) -> None:
        """Take in the tokens that follow those learned."""
        for token in tokens:
            self._tokens.append(token)
            self._run = (self._run << 32 | token) & (1 << 32 * MIN_MATCH) - 1
            place = len(self._tokens)
            if place < MIN_MATCH:
                self._earlier.append(0)
                continue
            self._earlier.append(self._latest.get(self._run, 0))
            self._latest[self._run] = place

    def propose(self, limit: int) -> tuple[int, ...]:
        """At most ``limit`` tokens that may follow those learned; none while it rests."""
        if self._resting:
            self._resting -= 1
            return ()
        place, length = self._best()
        period = len(self._tokens) - place
        # A match that reaches the end is a loop, which goes on.
        return tuple(self._tokens[place + i % period] for i in range(min(limit, length)))

    def judge(self, proposed: int, accepted: int) -> None:
        """Learn how many of the proposed tokens were accepted."""
        self._accepted = _MEMORY * self._accepted + (1 - _MEMORY) * accepted / proposed
        if self._accepted >= _LEAST_ACCEPTED:
            if accepted == proposed:
                self._pause = _FIRST_PAUSE
            return
        self._resting = self._pause
        self._pause = min(2 * self._pause, _LAST_PAUSE)
        # On trial after the rest: a few more refusals, and it rests again.
        self._accepted = 1.5 * _LEAST_ACCEPTED

    def _best(self) -> tuple[int, int]:
        """The place after the longest match with the end, and its length; 0 for none."""
        best, longest = 0, 0
        place = self._earlier[-1]
        for _ in range(_CANDIDATES):
            if place == 0:
                break
            length = self._matching(place)
            if length > longest:
                best, longest = place, length
            place = self._earlier[place]
        return best, longest

    def _matching(self, place: int) -> int:
        """How many tokens before ``place`` are the last ones; at least MIN_MATCH are."""
        tokens, end, length = self._tokens, len(self._tokens), MIN_MATCH
        most = min(MAX_MATCH, place)
        while length < most and tokens[place - 1 - length] == tokens[end - 1 - length]:
            length += 1
        return length
