"""Asks a set's questions, several at a time, and grades what comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ops.eval.metrics import METRICS
from ops.eval.question_set import GradedQuestion
from ops.problem import Problem
from ops.question import refusal

if TYPE_CHECKING:
    import aiohttp

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Graded:
    """One answer.

    Attributes:
        score: 0 to 1.
        valid: whether it parses, where JSON was asked for.
        seconds: from asking to the end of the answer, waiting for others' included.
    """

    question: GradedQuestion
    answer: str
    score: float
    valid: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Any OpenAI-compatible API; ``base_url`` ends in /v1."""

    base_url: str
    api_key: str
    model: str


async def grade(
    questions: Sequence[GradedQuestion],
    endpoint: Endpoint,
    *,
    at_once: int,
    max_tokens: int,
    done: Callable[[Graded], None],
) -> list[Graded]:
    """Ask everything; ``done`` is told of each answer as it comes.

    Returns:
        in the order of ``questions``.

    Raises:
        Problem: nobody answers, or the API refuses a question.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    turnstile = asyncio.Semaphore(at_once)

    async def one(question: GradedQuestion) -> Graded:
        async with turnstile:
            started = time.monotonic()
            answer = await _ask(session, endpoint, question.body(endpoint.model, max_tokens))
            graded = _graded(question, answer, time.monotonic() - started)
        done(graded)
        return graded

    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        tasks = [asyncio.ensure_future(one(question)) for question in questions]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def _ask(session: aiohttp.ClientSession, endpoint: Endpoint, body: dict[str, Any]) -> str:
    import aiohttp

    url = f"{endpoint.base_url}/chat/completions"
    try:
        async with session.post(url, json=body) as response:
            text = await response.text()
            if response.status != 200:
                raise Problem(refusal(response.status, text))
            return str(json.loads(text)["choices"][0]["message"]["content"] or "")
    except aiohttp.ClientConnectorError as error:
        raise Problem(f"nobody answers at {url}; start the system with `pixtral up`") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Problem(f"the connection broke: {error or 'no answer in time'}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise Problem(f"{url} does not answer as OpenAI's API does: {error!r}") from error


def _graded(question: GradedQuestion, answer: str, seconds: float) -> Graded:
    valid = None if question.schema is None else _parses(answer)
    score = METRICS[question.metric](answer, question.answers)
    return Graded(question, answer, score, valid, seconds)


def _parses(answer: str) -> bool:
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True
