"""Random requests with random aborts: nothing is lost, leaked or answered otherwise."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from ops.bench.engine.ours import Ours
from ops.bench.engine.prompts import Prompt, picture_prompt, text_prompt
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import Budget, TokensDifferError
from shards.request import FinishReason, GenerationRequest, Sampling

# Different questions; each is computed alone once, then asked again and again among others.
_QUESTIONS = 60
_ABORTED = 0.25
_ARRIVALS_A_STEP = 3
_PICTURES_EVERY = 6


@dataclass(frozen=True, slots=True)
class _Question:
    prompt: Prompt
    sampling: Sampling


def soak(ours: Ours, budget: Budget) -> Row:
    """Raises TokensDifferError: an answer is not that computed alone, nor a beginning of it."""
    dice = random.Random(2411)
    questions = [_question(ours, number, dice) for number in range(_QUESTIONS)]
    alone = [_answer(ours, f"alone {at}", each) for at, each in enumerate(questions)]
    started = time.perf_counter()
    outcome = _storm(ours, questions, alone, budget.soak, dice)
    stats = ours.engine.stats()
    ours.engine.check()
    return Row(
        "soak",
        f"{budget.soak} random requests on a tiny model, greedy and seeded, some with pictures;"
        f" {_ABORTED:.0%} aborted at random moments. Each answer equals the one computed alone, or"
        " begins it where it was aborted.",
        {
            "answered": outcome.answered,
            "aborted": outcome.aborted,
            "s": time.perf_counter() - started,
        },
        (
            Goal("requests neither answered nor aborted", outcome.unanswered, 0, at_least=False),
            Goal("blocks in use at the end", stats.blocks_total - stats.blocks_free, 0, False),
        ),
    )


@dataclass
class _Outcome:
    answered: int = 0
    aborted: int = 0
    unanswered: int = 0


def _storm(
    ours: Ours,
    questions: list[_Question],
    alone: list[tuple[int, ...]],
    count: int,
    dice: random.Random,
) -> _Outcome:
    engine, outcome = ours.engine, _Outcome()
    asked: dict[str, int] = {}
    said: dict[str, list[int]] = {}
    live: list[str] = []
    while len(asked) < count or engine.has_work:
        for _ in range(min(dice.randrange(2 * _ARRIVALS_A_STEP), count - len(asked))):
            name, number = f"storm {len(asked)}", dice.randrange(len(questions))
            _add(ours, name, questions[number])
            asked[name], said[name] = number, []
            live.append(name)
        deltas = list(engine.step())
        for name in [each for each in live if dice.random() < _ABORTED / 20]:
            deltas += engine.abort(name)
        for delta in deltas:
            said[delta.request_id] += delta.token_ids
            if delta.finish_reason is None:
                continue
            live.remove(delta.request_id)
            whole = alone[asked[delta.request_id]]
            tokens = tuple(said[delta.request_id])
            ended = delta.finish_reason is not FinishReason.ABORT
            if tokens != (whole if ended else whole[: len(tokens)]):
                raise TokensDifferError(f"{delta.request_id}: {tokens} beside {whole}")
            outcome.answered += ended
            outcome.aborted += not ended
    outcome.unanswered = count - outcome.answered - outcome.aborted
    return outcome


def _question(ours: Ours, number: int, dice: random.Random) -> _Question:
    length = dice.randrange(5, 80)
    if number % _PICTURES_EVERY:
        prompt = text_prompt(ours.model, 80_000 + number, length)
    else:
        prompt = picture_prompt(ours.model, 80_000 + number, 16 * dice.randrange(1, 6), length)
    sampling = Sampling(
        seed=number,
        max_tokens=dice.randrange(1, 24),
        temperature=dice.choice((0.0, 0.8, 1.3)),
        top_p=dice.choice((1.0, 0.9)),
        repetition_penalty=dice.choice((1.0, 1.2)),
        ignore_eos=dice.random() < 0.5,
    )
    return _Question(prompt, sampling)


def _add(ours: Ours, name: str, question: _Question) -> None:
    prompt = question.prompt
    request = GenerationRequest(name, prompt.token_ids, question.sampling, prompt.pictures)
    ours.engine.add(request, ours.features(prompt))


def _answer(ours: Ours, name: str, question: _Question) -> tuple[int, ...]:
    """Computed with nobody else there."""
    _add(ours, name, question)
    said: list[int] = []
    while ours.engine.has_work:
        for delta in ours.engine.step():
            said += delta.token_ids
    return tuple(said)
