"""A graded set, by task."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from ops.eval.grader import Graded


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One row.

    Attributes:
        score: mean, 0 to 1.
        valid: share of answers that parse, where JSON was asked for.
        median_s: seconds to an answer.
    """

    task: str
    metric: str
    questions: int
    score: float
    valid: float | None
    median_s: float


def task_scores(graded: Sequence[Graded]) -> list[TaskScore]:
    """By task and metric, in order of their first question."""
    groups: dict[tuple[str, str], list[Graded]] = {}
    for each in graded:
        groups.setdefault((each.question.task, each.question.metric), []).append(each)
    return [_score(task, metric, group) for (task, metric), group in groups.items()]


def as_table(graded: Sequence[Graded], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("task", "metric"):
        table.add_column(name)
    for name in ("questions", "score", "valid JSON", "median s"):
        table.add_column(name, justify="right")
    for row in task_scores(graded):
        table.add_row(
            row.task,
            row.metric,
            str(row.questions),
            f"{row.score:.1%}",
            "" if row.valid is None else f"{row.valid:.1%}",
            f"{row.median_s:.2f}",
        )
    mean = statistics.fmean(each.score for each in graded)
    seconds = statistics.median(each.seconds for each in graded)
    table.add_section()
    table.add_row("all", "", str(len(graded)), f"{mean:.1%}", "", f"{seconds:.2f}")
    return table


def as_json(graded: Sequence[Graded], model: str) -> str:
    answers = [
        {
            "task": each.question.task,
            "images": [image.name for image in each.question.images],
            "question": each.question.question,
            "right": each.question.answers,
            "answer": each.answer,
            "score": each.score,
            "valid": each.valid,
            "seconds": round(each.seconds, 3),
        }
        for each in graded
    ]
    tasks = [asdict(row) for row in task_scores(graded)]
    return json.dumps({"model": model, "tasks": tasks, "answers": answers}, indent=2)


def _score(task: str, metric: str, group: Sequence[Graded]) -> TaskScore:
    parsed = [each.valid for each in group if each.valid is not None]
    return TaskScore(
        task=task,
        metric=metric,
        questions=len(group),
        score=statistics.fmean(each.score for each in group),
        valid=statistics.fmean(parsed) if parsed else None,
        median_s=statistics.median(each.seconds for each in group),
    )
