"""The `pixtral eval` command."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ops.console import JsonOption, KeyOption, one_line_errors, target
from ops.eval.grader import Endpoint, Graded, grade
from ops.eval.question_set import GradedQuestion, read_set
from ops.eval.report import as_json, as_table
from ops.problem import Problem
from ops.served import first_model, started

BUNDLED_SET = Path(__file__).parent / "sets" / "nano"


def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="SET",
            help="A folder with pictures and questions.jsonl; else the bundled model's test set.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="Start this checkpoint here, for as long."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", metavar="URL", help="Any OpenAI-compatible API, with its /v1."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Served name.")] = None,
    key: KeyOption = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Only this one; may be repeated.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The first so many of each task.")
    ] = None,
    at_once: Annotated[int, typer.Option(metavar="N", min=1, help="Questions in flight.")] = 4,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Longest answer.")] = 64,
    json_: JsonOption = False,
) -> None:
    """Ask questions with known answers and grade what is answered.

    Of the system that runs here, unless told otherwise. Greedy, over the REST API, as any client
    would. Lines of questions.jsonl: {"images": ["a.png"], "question": "…", "answers": ["…"]}, and
    if wanted "task", "metric" (exact, relaxed as ChartQA, anls as DocVQA, json), "schema" and
    "before".

    Example: pixtral eval receipts/ --base-url http://127.0.0.1:8000/v1 --json
    """
    with one_line_errors():
        if model is not None and base_url is not None:
            raise Problem("--model starts a system, --base-url names another: give one")
        questions = _chosen(read_set(folder or BUNDLED_SET), task, limit)
        with started(model):
            system = target(base_url, key)
            served = name or first_model(system.base_url, system.api_key)
            endpoint = Endpoint(system.base_url, system.api_key, served)
            graded = _graded(questions, endpoint, at_once, max_tokens)
        if json_:
            typer.echo(as_json(graded, served))
        else:
            Console(highlight=False).print(as_table(graded, title=served))


def _chosen(
    questions: list[GradedQuestion], tasks: list[str] | None, limit: int | None
) -> list[GradedQuestion]:
    by_task: dict[str, list[GradedQuestion]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    if unknown := set(tasks or ()) - by_task.keys():
        known = ", ".join(sorted(by_task))
        raise Problem(f"no task {', '.join(sorted(unknown))}; there are {known}")
    return [each for task in tasks or by_task for each in by_task[task][:limit]]


def _graded(
    questions: list[GradedQuestion], endpoint: Endpoint, at_once: int, max_tokens: int
) -> list[Graded]:
    with _bar(len(questions)) as (progress, task):
        score = 0.0

        def done(graded: Graded) -> None:
            nonlocal score
            score += graded.score
            count = progress.tasks[task].completed + 1
            progress.update(task, advance=1, score=f"{score / count:.1%}")

        return asyncio.run(
            grade(questions, endpoint, at_once=at_once, max_tokens=max_tokens, done=done)
        )


@contextmanager
def _bar(total: int) -> Iterator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("score {task.fields[score]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress, progress.add_task("", total=total, score="–")
