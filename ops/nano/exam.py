"""Write the test set of the bundled model: ``python -m ops.nano.exam FOLDER``.

Seeds, typefaces and words of the test split, which no training and no validation ever draws from.
The folder is what ``pixtral eval`` reads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ops.eval.question_set import FILE
from ops.nano.drawing.scene import Scene, draw
from ops.nano.drawing.split import Split, generator
from ops.nano.questions.dialogue import Dialogue, about, about_nothing, about_two
from ops.nano.questions.turn import Turn

# Which pictures each task is asked about.
KINDS: dict[str, tuple[str, ...]] = {
    "shape": ("shapes",),
    "colour": ("shapes",),
    "count": ("shapes",),
    "position": ("shapes",),
    "presence": ("shapes",),
    "description": ("shapes",),
    "comparison": ("pair",),
    "number": ("writing",),
    "word": ("writing",),
    "receipt": ("receipt",),
    "chart": ("chart",),
    "json": ("shapes", "writing", "receipt", "chart"),
    "follow_up": ("shapes",),
    "no_picture": ("nothing",),
}
_MOST_ASKED = 40
# Of WebP: grain takes 100 kB a picture otherwise.
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the exam, after ``before``."""

    scenes: tuple[Scene, ...]
    before: tuple[Turn, ...]
    turn: Turn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.nano.exam", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=50, help="of each task")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.questions, arguments.split)


def write(folder: Path, questions: int, split: Split) -> None:
    """Pictures as WebP, and the questions."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for task, kinds in KINDS.items():
        for place in range(questions):
            asked = _asked(task, kinds[place % len(kinds)], place, split)
            names = [f"{task}-{place:03}-{number}.webp" for number in range(len(asked.scenes))]
            for scene, name in zip(asked.scenes, names, strict=True):
                scene.image.save(folder / name, quality=_QUALITY)
            lines.append(json.dumps(_entry(task, asked, names), ensure_ascii=False))
    (folder / FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _asked(task: str, kind: str, place: int, split: Split) -> Asked:
    """The first question of ``task`` in a row of drawn pictures."""
    for attempt in range(_MOST_ASKED):
        rng = generator(split, "exam", task, place, attempt)
        dialogue = _dialogue(rng, kind, split)
        found = [asked for asked in _questions(dialogue) if asked.turn.task == task]
        if found:
            return found[int(rng.integers(len(found)))]
    raise RuntimeError(f"no question of {task} about {_MOST_ASKED} pictures of {kind}")


def _questions(dialogue: Dialogue) -> Iterator[Asked]:
    """Each exchange alone; a follow-up after what it follows."""
    before: tuple[Turn, ...] = ()
    for turn in dialogue.turns:
        if turn.task != "follow_up":
            before = ()
        yield Asked(dialogue.scenes, before, turn)
        before = (*before, turn)


def _dialogue(rng: np.random.Generator, kind: str, split: Split) -> Dialogue:
    columns, rows = _grid(rng)
    if kind == "pair":
        first, second = (draw(rng, "shapes", columns, rows, split, exact=False) for _ in range(2))
        return about_two(rng, (first, second), 4)
    scene = draw(
        rng, "shapes" if kind == "nothing" else kind, columns, rows, split, exact=rng.random() < 0.5
    )
    return about_nothing(rng, scene, 3) if kind == "nothing" else about(rng, scene, 9)


def _grid(rng: np.random.Generator) -> tuple[int, int]:
    """From about 96 x 64 pixels to 256 x 256, small ones more often."""
    most = int(rng.choice([48, 64, 100, 160, 256]))
    while True:
        columns, rows = int(rng.integers(6, 17)), int(rng.integers(4, 17))
        if most // 2 <= columns * rows <= most and rows <= 1.5 * columns:
            return columns, rows


def _entry(task: str, asked: Asked, names: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "images": names,
        "question": asked.turn.question,
        "answers": [asked.turn.answer],
        "task": task,
    }
    if asked.before:
        entry["before"] = [[turn.question, turn.answer] for turn in asked.before]
    if task == "json":
        entry |= {"metric": "json", "schema": _schema(json.loads(asked.turn.answer))}
    return entry


def _schema(answer: dict[str, Any]) -> dict[str, Any]:
    types = {
        key: "integer" if isinstance(value, int) else "string" for key, value in answer.items()
    }
    return {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in types.items()},
        "required": list(answer),
        "additionalProperties": False,
    }


if __name__ == "__main__":
    main()
