"""Train pixtral-nano, lesson by lesson; a lesson that was stopped goes on.

python -m ops.nano.train vision  --run DIR                what lies in every patch
python -m ops.nano.train answers --run DIR                goes on from what the first learned
python -m ops.nano.train export  --run DIR --to FOLDER    writes the averaged weights to serve
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ops.nano.train.answers import AnswersLesson, dialogue_ids
from ops.nano.train.export import export
from ops.nano.train.lesson import Lesson
from ops.nano.train.shape import TRAINED
from ops.nano.train.trainer import Pace, Trainer
from ops.nano.train.vision import VisionLesson
from ops.nano.train.vocabulary import Vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ops.nano.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lesson", choices=["vision", "answers", "export"])
    parser.add_argument("--to", type=Path, help="where to export")
    parser.add_argument("--run", type=Path, required=True, help="where checkpoints and log lie")
    parser.add_argument("--steps", type=int, default=30_000, help="of the lesson in all")
    parser.add_argument("--decay", type=int, default=0, help="last steps, in which the rate falls")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--most-patches", type=int, default=256, help="of a picture")
    parser.add_argument("--batch", type=int, help="patches, or tokens, in a batch")
    parser.add_argument("--grade-every", type=int, default=250, help="steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.lesson == "export":
        return _export(arguments.run, arguments.to)
    arguments.run.mkdir(parents=True, exist_ok=True)
    pace = Pace(arguments.rate, arguments.steps, decay=arguments.decay)
    trainer = Trainer(_lesson(arguments), arguments.run, pace)
    return trainer.run(grade_every=arguments.grade_every, save_every=250)


def _lesson(arguments: argparse.Namespace) -> Lesson:
    run: Path = arguments.run
    if arguments.lesson == "vision":
        return VisionLesson(arguments.most_patches, arguments.batch or 3072)
    lesson = AnswersLesson(vocabulary(run), arguments.most_patches, arguments.batch or 8192)
    if not (run / "answers.pt").exists():
        lesson.begin_from(run / "vision.pt")
    return lesson


def _export(run: Path, folder: Path) -> None:
    state = torch.load(run / "answers.pt", weights_only=True)
    lesson = AnswersLesson(vocabulary(run), most_patches=1, batch_tokens=1)
    lesson.model.load_state_dict(state["average"])
    export(lesson, folder)
    print(f"{folder}: step {state['step']}, {state['pictures']} pictures, {state['cpu_s']:.0f} s")


def vocabulary(run: Path) -> Vocabulary:
    """The one in ``run``; written there the first time."""
    file = run / "vocabulary.json"
    if not file.exists():
        file.write_text(json.dumps(sorted(dialogue_ids())), encoding="utf-8")
    return Vocabulary(json.loads(file.read_text(encoding="utf-8")), TRAINED.text.vocab_size)


if __name__ == "__main__":
    main()
