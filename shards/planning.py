"""Turns who is seated into a step's plan, in words for what changed only. Standard library only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shards.blocks import BlockAllocator
from shards.choice import Choice
from shards.limits import Limits
from shards.step import Advance, StepPlan


@dataclass(frozen=True, slots=True)
class Schedule:
    """A step's plan.

    Attributes:
        choices: those that compute something; ``planned`` and ``drafts`` say what.
        begun: those of which the ranks hear for the first time since they were seated.
    """

    plan: StepPlan
    choices: tuple[Choice, ...]
    begun: tuple[Choice, ...]


def plan_step(
    seated: Collection[Choice], ended: Sequence[int], limits: Limits, blocks: BlockAllocator
) -> Schedule:
    """What the seated choices compute; each that decodes has a block for its next token."""
    begun = tuple(choice for choice in seated if not choice.told)
    for choice in begun:
        choice.told = True
    begins = tuple(choice.begin() for choice in begun)
    for choice in begun:
        choice.fresh = []
    decoding = [choice for choice in seated if choice.missing == 1]
    chunks = _chunks(seated, limits.max_step_tokens - len(decoding))
    for choice in decoding:
        choice.planned = 1
        choice.drafts = ()
    advances = [_advance(choice) for choice in chunks]
    # Drafts come last and take what is over: they are a gamble, prompts are work.
    spare = limits.max_step_tokens - len(decoding) - sum(choice.planned for choice in chunks)
    for choice in decoding:
        if limits.max_drafts and spare:
            spare -= _draft(choice, min(limits.max_drafts, spare), limits, blocks, len(seated))
        if choice.fresh or choice.drafts or choice.matcher is not None:
            advances.append(_advance(choice))
    plan = StepPlan(tuple(ended), begins, tuple(advances))
    return Schedule(plan, (*decoding, *chunks), begun)


def _chunks(seated: Collection[Choice], budget: int) -> list[Choice]:
    """Share a budget of tokens among prompts, each as much as it can take, in order of service."""
    chunks = []
    prefilling = [choice for choice in seated if choice.missing > 1]
    for choice in sorted(prefilling, key=_turn):
        if budget == 0:
            break
        choice.planned = min(choice.missing, budget)
        choice.drafts = ()
        budget -= choice.planned
        chunks.append(choice)
    return chunks


def _turn(choice: Choice) -> tuple[float, ...]:
    """By priority, by what the team has had, by what it is owed; within a team by arrival."""
    account = choice.generation.account
    return (-choice.level, account.counter, account.owed, choice.generation.serial, choice.index)


def _draft(choice: Choice, most: int, limits: Limits, blocks: BlockAllocator, reserve: int) -> int:
    """Give a choice drafts; how many. Their blocks are never the last ``reserve`` free ones.

    A block whose drafts are refused stays: the choice is going to need it.
    """
    drafts = choice.propose(min(most, choice.left - 1))
    reach = choice.computed + 1
    lacking = limits.blocks(reach + len(drafts)) - len(choice.block_table)
    lacking = max(min(lacking, blocks.free - reserve), 0)
    room = (len(choice.block_table) + lacking) * limits.block_size - reach
    drafts = drafts[:room]
    lacking = limits.blocks(reach + len(drafts)) - len(choice.block_table)
    if lacking > 0:
        more = blocks.allocate(lacking)
        choice.block_table += more
        choice.fresh += more
    choice.drafts = drafts
    choice.planned = 1 + len(drafts)
    return len(drafts)


def _advance(choice: Choice) -> Advance:
    assert choice.row is not None
    masks = choice.masks(choice.drafts) if choice.draws else ()
    if masks and len(masks) <= len(choice.drafts):
        # The grammar refuses the next draft.
        choice.drafts = choice.drafts[: len(masks) - 1]
        choice.planned = 1 + len(choice.drafts)
    fresh, choice.fresh = tuple(choice.fresh), []
    return Advance(choice.row, choice.planned, fresh, choice.drafts, masks if any(masks) else ())
