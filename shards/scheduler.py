"""Which tokens of which choices the next step computes. Standard library only.

Continuous batching: every step takes one token of each choice that decodes, then fills what is left
of ``max_step_tokens`` with chunks of prompts, and what is left of that with drafts. Whose prompt
and whose seat it is, fairness.py and waiting_room.py say.

Admission is optimistic: a choice is seated when all its known tokens fit, and every choice that is
seated can go on for ``headroom_tokens`` more, not when the longest answers would. Few answers are
as long as they may be, so more run at once; those that need no more than the headroom are as safe
as under the strict rule. When the cache runs out all the same, the choice that is to be served last
is put back: it keeps its output, waits at the front of its lane, and later computes again what
the prefix cache has lost of it.

Nothing is dropped and nothing goes round in circles:

- A request that could not run alone is refused at once.
- The choice that has had its seat longest is never put back. It fits alone, so room is made for
  each of its tokens, and it ends. Then another has had its seat longest.
- For another team's sake a choice is put back at most once between two tokens that it draws.
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.blocks import BlockAllocator
from shards.choice import Choice
from shards.drafts import LEARN_LIMIT
from shards.errors import ContextLengthError, QueueFullError, RequestError
from shards.fairness import Shares
from shards.generation import Generation
from shards.holdings import Holdings
from shards.limits import Limits
from shards.planning import Schedule, plan_step
from shards.prefix_cache import PrefixCache
from shards.waiting_room import WaitingRoom

# Who still waits after so many full batches were seated rises by one level of priority.
_PATIENCE_BATCHES = 4


@dataclass(slots=True)
class Counters:
    """What happened so far, in tokens but for ``put_back`` (choices).

    Attributes:
        queried: prompt tokens looked up in the prefix cache, once per metered request.
        cached: those found.
        put_back: times that a choice lost its seat.
        recomputed: tokens computed again because of that.
    """

    queried: int = 0
    cached: int = 0
    put_back: int = 0
    recomputed: int = 0


class Scheduler:
    """Attributes: ``seated``: choices that run, the one longest seated first."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.blocks = BlockAllocator(limits.num_blocks)
        self.counters = Counters()
        self.seated: dict[Choice, None] = {}
        self._cache = PrefixCache(self.blocks, limits.block_size)
        self._shares = Shares()
        self._room = WaitingRoom(_PATIENCE_BATCHES * limits.max_batch_sequences)
        # The lowest go out first.
        self._rows = list(range(limits.max_batch_sequences - 1, -1, -1))
        self._ended: list[int] = []
        self._arrivals = 0
        self._seatings = 0
        # Tokens that proposers may still learn in this step.
        self._learnable = LEARN_LIMIT

    @property
    def waiting(self) -> list[Generation]:
        """Requests of which nothing was computed yet, for want of room."""
        return [choice.generation for choice in self._room if not choice.generation.begun]

    def add(self, generation: Generation) -> None:
        """Seat a request if there is room, else let it wait.

        Raises:
            ContextLengthError: it could never run; the numbers are given.
            RequestError: it asks for more choices than run at once.
            QueueFullError: ``max_waiting`` requests wait already.
        """
        self._refuse_impossible(generation)
        self._arrivals += 1
        generation.serial = self._arrivals
        generation.account = self._shares.account(generation.request.tenant)
        first = generation.choices[0]
        self._enqueue(first)
        self._seat()
        if first.waits and len(self.waiting) > self.limits.max_waiting:
            self.finish(first)
            raise QueueFullError(f"{self.limits.max_waiting} requests wait already")

    def schedule(self) -> Schedule:
        """The next step; empty when nothing runs."""
        self._learnable = LEARN_LIMIT
        self._make_room()
        self._seat(by_force=True)
        # Told with the next step that computes something.
        ended = self._ended if self.seated else []
        self._ended = [] if self.seated else self._ended
        return plan_step(self.seated, ended, self.limits, self.blocks)

    def advance(self, choice: Choice, drawn: int) -> None:
        """Note that what was planned for a choice is computed, and how many tokens it drew.

        The drawn tokens are not among its output yet.
        """
        before = choice.computed
        accepted = max(drawn - 1, 0)
        choice.computed += choice.planned - len(choice.drafts) + accepted
        if choice.drafts:
            assert choice.proposer is not None
            choice.proposer.judge(len(choice.drafts), accepted)
        if drawn:
            choice.put_back = False
        if before < choice.reached or before < len(choice.generation.request.prompt):
            self._prefilled(choice, before)
        choice.reached = max(choice.reached, choice.computed)

    def settle(self, choice: Choice) -> None:
        """After the drawn tokens that count were added: name its blocks; free them if it ended."""
        if choice.served < len(choice.output):
            output = len(choice.output) - choice.served
            self._shares.serve(choice.generation.account, output=output)
            choice.served += output
        computed = min(choice.computed, choice.known)
        if computed >= (choice.named + 1) * self.limits.block_size:
            choice.named = self._cache.keep(
                choice.chain, choice, choice.block_table, choice.named, computed
            )
        self._learnable -= choice.learn(self._learnable)
        if choice.finish_reason is not None:
            self.finish(choice)

    def finish(self, choice: Choice) -> None:
        """Free what a choice holds, at once, wherever it is."""
        if choice.row is not None:
            self._rise(choice)
        elif choice.waits:
            self._room.take(choice)
            choice.waits = False
            self._shares.wait_no_more(choice.generation.account)

    def check(self) -> None:
        """Raises BlockAccountingError when a block is leaked or doubly used."""
        self.blocks.check(choice.block_table for choice in self.seated)

    # -- what a step brought ----------------------------------------------------------------------

    def _prefilled(self, choice: Choice, before: int) -> None:
        """Tokens from ``before`` on were computed, of the prompt or once more."""
        generation, prompt = choice.generation, len(choice.generation.request.prompt)
        if choice.index == 0:
            self._looked_up(choice)
        if choice.reached > choice.found:
            again = min(choice.computed, choice.reached) - before
            self.counters.recomputed += max(again, 0)
        reached = max(choice.reached, choice.found)
        new = max(min(choice.computed, prompt) - reached, 0)
        choice.owed -= new
        self._shares.serve(generation.account, prompt=new)
        if choice.index == 0 and not generation.forked and choice.computed >= prompt:
            for other in generation.fork():
                self._enqueue(other)

    def _looked_up(self, choice: Choice) -> None:
        """Of a prompt was found what nobody computed for it: also where it was put back halfway,
        and another request computed the rest meanwhile.
        """
        generation, prompt = choice.generation, len(choice.generation.request.prompt)
        found = max(min(choice.found, prompt) - choice.reached, 0)
        generation.note_cached(choice.reached, found)
        if generation.metered:
            self.counters.queried += prompt if choice.reached == 0 else 0
            self.counters.cached += found

    # -- room for those who run -------------------------------------------------------------------

    def _make_room(self) -> None:
        """A block for each choice whose next token needs one, the longest seated first."""
        for choice in list(self.seated):
            if choice.row is None or choice.missing != 1:
                continue
            lacking = self.limits.blocks(choice.computed + 1) - len(choice.block_table)
            while choice.row is not None and lacking > self.blocks.free:
                self._put_back(self._last_served())
            if choice.row is not None and lacking > 0:
                blocks = self.blocks.allocate(lacking)
                choice.block_table += blocks
                choice.fresh += blocks

    def _last_served(self) -> Choice:
        """Whom the order of service puts last; never the one longest seated."""
        return self._by_turn()[-1]

    def _by_turn(self) -> list[Choice]:
        """Who may lose a seat, those to be served first first; of one team the longest seated."""
        return sorted(
            list(self.seated)[1:],
            key=lambda choice: (-choice.level, choice.generation.account.committed),
        )

    def _put_back(self, choice: Choice) -> None:
        self.counters.put_back += 1
        self._rise(choice)
        self._enqueue(choice)

    # -- seats ------------------------------------------------------------------------------------

    def _enqueue(self, choice: Choice) -> None:
        if choice.waits_since is None:
            choice.waits_since = self._seatings
        choice.waits = True
        self._shares.wait(choice.generation.account)
        self._room.put(choice)

    def _seat(self, by_force: bool = False) -> None:
        """Seat who waits, in turn, while there is room; nobody overtakes one who needs much."""
        while (choice := self._room.next(self._seatings)) is not None:
            if not self._rows and not by_force:
                return
            # What is found stays where it is when others are put back.
            found = self._cache.match(choice.chain, choice, choice.known)
            if not self._has_room(choice, found):
                if not by_force or not self._reclaim(choice, found):
                    return
                if not self._has_room(choice, found):
                    return
            self._sit(choice, found)

    def _has_room(self, choice: Choice, found: list[int]) -> bool:
        """Whether it can have a seat on the blocks found and all the others that it needs."""
        return bool(self._rows) and self._needed(choice, found) <= self.blocks.free

    def _needed(self, choice: Choice, found: list[int]) -> int:
        """Blocks to take for a seat beside the others; alone, a choice may go on to the end."""
        needed = self.limits.blocks(choice.known) - len(found) + self.blocks.idle(found)
        if self.seated:
            needed += sum(map(self._headroom, self.seated)) + self._headroom(choice)
        return needed

    def _headroom(self, choice: Choice) -> int:
        """Blocks it lacks to go on for ``headroom_tokens``; the last token drawn needs no room."""
        ahead = min(choice.left - 1, self.limits.headroom_tokens)
        held = max(len(choice.block_table), self.limits.blocks(choice.known))
        return max(self.limits.blocks(choice.known + ahead) - held, 0)

    def _sit(self, choice: Choice, found: list[int]) -> None:
        self.blocks.share(found)
        fresh = self.blocks.allocate(self.limits.blocks(choice.known) - len(found))
        choice.block_table = [*found, *fresh]
        choice.fresh = []
        choice.computed = choice.found = len(found) * self.limits.block_size
        choice.named = len(found)
        choice.row = self._rows.pop()
        choice.told = False
        self._room.take(choice)
        choice.waits = False
        self._seatings += 1
        self.seated[choice] = None
        prompt = len(choice.generation.request.prompt)
        choice.owed = max(prompt - max(choice.found, choice.reached), 0)
        self._shares.sit(choice.generation.account, choice.owed)

    def _rise(self, choice: Choice) -> None:
        assert choice.row is not None
        self.blocks.release(choice.block_table)
        choice.block_table, choice.fresh, choice.computed = [], [], 0
        self._rows.append(choice.row)
        if choice.told:
            self._ended.append(choice.row)
        choice.row = None
        del self.seated[choice]
        self._shares.rise(choice.generation.account, choice.owed)
        choice.owed = 0

    def _reclaim(self, choice: Choice, found: list[int]) -> bool:
        """Put back choices of teams that hold more than their part, for one that keeps within its.

        Only if that makes room, as far as can be said before.
        """
        mine = choice.generation.account
        others = [
            other
            for other in reversed(self._by_turn())
            if other.generation.account is not mine
            and not other.put_back
            and other.level <= choice.level
        ]
        if not others:
            return False
        holdings = Holdings(self.seated, self._shares.present, self.limits)
        fresh = self.limits.blocks(choice.known) - len(found) + self._headroom(choice)
        if holdings.would_exceed(mine, found, fresh):
            return False
        lacking = self._needed(choice, found) - self.blocks.free
        victims: list[Choice] = []
        for other in others:
            if holdings.exceed(other.generation.account):
                holdings.give(other.generation.account, other.block_table)
                victims.append(other)
                lacking -= self.blocks.own(other.block_table) + self._headroom(other)
                if lacking <= 0:
                    break
        if not victims or lacking > 0:
            return False
        for victim in victims:
            victim.put_back = True
            self._put_back(victim)
        return True

    def _refuse_impossible(self, generation: Generation) -> None:
        limits, request = self.limits, generation.request
        prompt, answer = len(request.prompt), request.sampling.max_tokens
        if len(generation.choices) > limits.max_batch_sequences:
            raise RequestError(
                "n", f"{len(generation.choices)} choices; {limits.max_batch_sequences} run at once"
            )
        if prompt + answer > limits.max_context_tokens:
            raise ContextLengthError(
                "messages" if prompt >= limits.max_context_tokens else "max_tokens",
                f"the prompt has {prompt} tokens and up to {answer} were asked for; together "
                f"they may be at most {limits.max_context_tokens}",
            )
        if generation.blocks_owed > limits.num_blocks:
            raise ContextLengthError(
                "max_tokens",
                f"{len(generation.choices)} x up to {answer} tokens after a prompt of {prompt} "
                f"need {generation.blocks_owed} blocks of {limits.block_size} tokens; the KV "
                f"cache has {limits.num_blocks}",
            )
