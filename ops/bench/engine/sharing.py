"""What requests share: a picture over the turns of a conversation, and the batch between teams."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence

from ops.bench.engine.model import Model
from ops.bench.engine.ours import BLOCK, Ours, Settings
from ops.bench.engine.prompts import Prompt, picture_prompt, text_prompt, words
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import Budget, Run, Spread, require_equal
from shards.request import Delta, Tenant

# Sequences side by side while teams compete; more would serve more and answer each later.
SHARED_BATCH = 8
WEIGHTS = {"one": 1.0, "three": 3.0}
_QUIET_ASKS = 4


def second_turn(ours: Ours, budget: Budget) -> Row:
    """A question about a picture, then another: only what follows the first answer is computed."""
    model = ours.model
    turns = [_two_turns(ours, model, number, budget) for number in range(budget.repeats + 1)][1:]
    firsts = Spread.least([first.first_s for first, _, _ in turns])
    seconds = Spread.least([second.first_s for _, second, _ in turns])
    last = turns[-1][2]
    return Row(
        "second turn",
        f"The same picture of {budget.side} pixels square asked about again; its features are kept"
        " by their content, as the vision tier keeps them.",
        {
            "s to first token, first turn": firsts,
            "s to first token, second turn": seconds,
            "tokens of the second turn": last.prompt_tokens,
            "of them cached": last.cached_tokens,
            "of them after the first difference": last.prompt_tokens - last.cached_tokens,
        },
        (
            Goal("of the first turn's time", seconds.best / firsts.best, 0.12, at_least=False),
            Goal(
                "tokens computed twice, in blocks",
                (last.shared - last.cached_tokens) / BLOCK,
                1,
                at_least=False,
            ),
            Goal("patches encoded again", last.encoded_again, 0, at_least=False),
        ),
    )


class _Second:
    """Counts of a second turn. ``shared``: tokens of it that the first turn had computed."""

    def __init__(self, delta: Delta, shared: int, encoded_again: int) -> None:
        self.prompt_tokens = delta.prompt_tokens
        self.cached_tokens = delta.cached_tokens
        self.shared = shared
        self.encoded_again = encoded_again


def _two_turns(ours: Ours, model: Model, number: int, budget: Budget) -> tuple[Run, Run, _Second]:
    prompt = picture_prompt(model, 10_000 + number, budget.side, budget.text_tokens)
    first = ours.run([prompt], budget.new_tokens // 4)
    encoded = ours.encoded
    said = first.tokens[0]
    following = prompt.then((*said, *words(model, 20_000 + number, 16)))
    second, delta = _timed(ours, following, 2)
    # The last token that was drawn is computed only now.
    shared = len(prompt.token_ids) + len(said) - 1
    counts = _Second(delta, shared, ours.encoded - encoded)
    require_equal("second turn", second.tokens, _afresh(ours, following, 2).tokens)
    return first, second, counts


def _timed(ours: Ours, prompt: Prompt, new_tokens: int) -> tuple[Run, Delta]:
    """Ask alone; the run and its last delta."""
    started = time.perf_counter()
    ours.ask(prompt, new_tokens)
    deltas, moments = [], []
    while ours.engine.has_work:
        step = ours.engine.step()
        drawn = sum(len(delta.token_ids) for delta in step)
        deltas += step
        if drawn:
            moments.append((time.perf_counter() - started, drawn))
    tokens = tuple(token for delta in deltas for token in delta.token_ids)
    return Run((tokens,), tuple(moments), moments[0][0]), deltas[-1]


def _afresh(ours: Ours, prompt: Prompt, new_tokens: int) -> Run:
    """The same without anything cached: under a salt of its own."""
    return ours.run([prompt], new_tokens, tenant=Tenant(cache_salt=str(time.monotonic_ns())))


def two_teams(model: Model, budget: Budget) -> Row:
    """A team that floods beside one that asks now and then; then two that flood by weight."""
    ours = Ours.load(model, Settings(sequences=SHARED_BATCH, step_tokens=128))
    try:
        _ask_alone(ours, 0, budget)
        alone = statistics.median(_ask_alone(ours, number, budget) for number in range(1, 4))
        beside = _beside_a_flood(ours, budget)
        shares = _shares(ours, budget)
    finally:
        ours.close()
    wanted = {team: weight / sum(WEIGHTS.values()) for team, weight in WEIGHTS.items()}
    off = max(abs(shares[team] / wanted[team] - 1) for team in WEIGHTS)
    return Row(
        "two teams",
        f"{SHARED_BATCH} sequences at most; one team floods with {budget.flood} requests of"
        f" {budget.text_tokens} tokens in and {_answer(budget)} out, the other asks one at a time."
        f" Then both flood, with weights {' and '.join(map(str, WEIGHTS.values()))}.",
        {
            "quiet team's median s, alone": alone,
            "quiet team's median s, beside the flood": statistics.median(beside),
            **{f"share of tokens, weight {WEIGHTS[team]:g}": shares[team] for team in WEIGHTS},
        },
        (
            Goal("quiet team's latency, x alone", statistics.median(beside) / alone, 2.5, False),
            Goal("tokens, off the weights", off, 0.15, at_least=False),
        ),
    )


def _answer(budget: Budget) -> int:
    return max(2, budget.new_tokens // 2)


def _ask_alone(ours: Ours, number: int, budget: Budget) -> float:
    """Seconds of one request with nobody else there."""
    prompt = text_prompt(ours.model, 30_000 + number, budget.text_tokens)
    return ours.run([prompt], _answer(budget), tenant=Tenant("quiet")).total_s


def _beside_a_flood(ours: Ours, budget: Budget) -> list[float]:
    """Seconds of each of the quiet team's requests, the next sent when the one before ended."""
    for number in range(budget.flood):
        prompt = text_prompt(ours.model, 40_000 + number, budget.text_tokens)
        ours.ask(prompt, _answer(budget), tenant=Tenant("loud"))
    for _ in range(SHARED_BATCH):  # the batch is full of the loud team's before the other comes
        ours.engine.step()
    took = []
    for number in range(_QUIET_ASKS):
        prompt = text_prompt(ours.model, 50_000 + number, budget.text_tokens)
        started = time.perf_counter()
        name = ours.ask(prompt, _answer(budget), tenant=Tenant("quiet"))
        while not _ended(name, ours.engine.step()):
            pass
        took.append(time.perf_counter() - started)
    ours.abort_all()
    return took


def _ended(name: str, deltas: Sequence[Delta]) -> bool:
    return any(delta.request_id == name and delta.finish_reason is not None for delta in deltas)


def _shares(ours: Ours, budget: Budget) -> dict[str, float]:
    """Of the tokens served (prompt and answer) while both teams had requests waiting."""
    teams: dict[str, str] = {}
    for number in range(budget.flood):
        for team, weight in WEIGHTS.items():
            place = 60_000 + 2 * number + (team == "three")
            prompt = text_prompt(ours.model, place, budget.text_tokens)
            name = ours.ask(prompt, _answer(budget), tenant=Tenant(team, weight))
            teams[name] = team
    served: Counter[str] = Counter()
    left = Counter(teams.values())
    prefilled: set[str] = set()
    # Until the favoured team's requests are all in the batch: there is no contention beyond.
    while min(left.values()) > SHARED_BATCH:
        for delta in ours.engine.step():
            team = teams[delta.request_id]
            if delta.request_id not in prefilled:
                prefilled.add(delta.request_id)
                served[team] += delta.prompt_tokens
            served[team] += len(delta.token_ids)
            left[team] -= delta.finish_reason is not None
    ours.abort_all()
    total = sum(served.values())
    return {team: served[team] / total for team in WEIGHTS}
