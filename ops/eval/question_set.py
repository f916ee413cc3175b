"""A folder of pictures with questions and right answers, one question a line (JSONL).

    {"images": ["a.png"], "question": "What is the total?", "answers": ["12.40"]}

images     files in the folder, shown before the question; may be left out
answers    any of them is right
task       what it is counted under ("all")
metric     exact, relaxed, anls or json ("exact"; see ops/eval/metrics.py)
schema     asked for as ``response_format``; answers that do not parse are counted
before     earlier exchanges, [[question, answer], …]
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ops.eval.metrics import MetricName
from ops.problem import Problem
from ops.question import data_url

FILE = "questions.jsonl"
_KNOWN = {"images", "question", "answers", "task", "metric", "schema", "before"}


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """One line; ``images`` are paths that exist."""

    question: str
    answers: tuple[str, ...]
    images: tuple[Path, ...] = ()
    task: str = "all"
    metric: MetricName = "exact"
    schema: dict[str, Any] | None = None
    before: tuple[tuple[str, str], ...] = field(default=())

    def body(self, model: str, max_tokens: int) -> dict[str, Any]:
        """Of /v1/chat/completions, greedy.

        Raises:
            Problem: a picture that cannot be read or is none.
        """
        pictures: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image)}} for image in self.images
        ]
        messages: list[dict[str, Any]] = []
        for asked, answered in self.before:
            messages.append({"role": "user", "content": [*pictures, _text(asked)]})
            messages.append({"role": "assistant", "content": answered})
            pictures = []
        messages.append({"role": "user", "content": [*pictures, _text(self.question)]})
        body: dict[str, Any] = {
            "model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens,
        }  # fmt: skip
        if self.schema is not None:
            described = {"name": "answer", "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": described}
        return body


def read_set(folder: Path) -> list[GradedQuestion]:
    """Every question in ``folder``.

    Raises:
        Problem: naming file, line and key of what is wrong.
    """
    file = folder / FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error
    questions = [
        _question(folder, line, f"{file}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not questions:
        raise Problem(f"{file} holds no question")
    return questions


def _question(folder: Path, line: str, where: str) -> GradedQuestion:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise Problem(f"{where}: not JSON ({error})") from error
    if not isinstance(entry, dict):
        raise Problem(f"{where}: not an object")
    if unknown := entry.keys() - _KNOWN:
        raise Problem(f"{where}: unknown key {', '.join(sorted(unknown))}")
    answers = entry.get("answers")
    if not isinstance(answers, list) or not answers or not all(_is_text(each) for each in answers):
        raise Problem(f"{where}: answers must be a list of texts, at least one")
    if not _is_text(entry.get("question")):
        raise Problem(f"{where}: question must be a text")
    metric = entry.get("metric", "exact")
    if metric not in get_args(MetricName):
        raise Problem(f"{where}: metric must be one of {', '.join(get_args(MetricName))}")
    schema = entry.get("schema")
    if schema is not None and not isinstance(schema, dict):
        raise Problem(f"{where}: schema must be an object")
    return GradedQuestion(
        question=entry["question"],
        answers=tuple(answers),
        images=_images(folder, entry.get("images", []), where),
        task=str(entry.get("task", "all")),
        metric=metric,
        schema=schema,
        before=_before(entry.get("before", []), where),
    )


def _images(folder: Path, names: Any, where: str) -> tuple[Path, ...]:
    if not isinstance(names, list) or not all(_is_text(name) for name in names):
        raise Problem(f"{where}: images must be a list of file names")
    images = tuple(folder / name for name in names)
    for image in images:
        if not image.is_file():
            raise Problem(f"{where}: images: {image} is not there")
    return images


def _before(turns: Any, where: str) -> tuple[tuple[str, str], ...]:
    fits = isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(_is_text(text) for text in turn)
        for turn in turns
    )
    if not fits:
        raise Problem(f"{where}: before must be a list of [question, answer]")
    return tuple((asked, answered) for asked, answered in turns)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}
