"""Train pixtral-nano, lesson by lesson; a lesson that was stopped goes on.

python -m ops.nano.train vision  --run DIR                what lies in every patch
python -m ops.nano.train answers --run DIR                goes on from what the first learned,
                                                          in a new DIR from what is committed
python -m ops.nano.train save    --run DIR                a compact copy beside this code, to commit
python -m ops.nano.train export  --run DIR --to FOLDER    weights, card and curve, as committed
python -m ops.nano.train serve   --run DIR --to FOLDER    a checkpoint for `pixtral up --model`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ops.nano.shape import TRAINED
from ops.nano.train.answers import AnswersLesson, dialogue_ids
from ops.nano.train.export import bundle, export
from ops.nano.train.lesson import Lesson
from ops.nano.train.resume import COMMITTED, restore, save
from ops.nano.train.trainer import Pace, Trainer
from ops.nano.train.vision import VisionLesson
from ops.nano.train.vocabulary import Vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ops.nano.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lesson", choices=["vision", "answers", "save", "export", "serve"])
    parser.add_argument("--to", type=Path, help="where to write weights")
    parser.add_argument(
        "--scores", type=Path, help="what `pixtral eval --json` printed, for the card"
    )
    parser.add_argument("--run", type=Path, required=True, help="where checkpoints and log lie")
    parser.add_argument("--steps", type=int, default=30_000, help="of the lesson in all")
    parser.add_argument("--decay", type=int, default=0, help="last steps, in which the rate falls")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--most-patches", type=int, default=256, help="of a picture")
    parser.add_argument("--batch", type=int, help="patches, or tokens, in a batch")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--threads", type=int, default=1, help="beside the process that draws")
    parser.add_argument("--grade-every", type=int, default=250, help="steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.lesson == "save":
        return save(arguments.run, arguments.to or COMMITTED)
    if arguments.lesson in ("export", "serve"):
        return _write(arguments)
    arguments.run.mkdir(parents=True, exist_ok=True)
    pace = Pace(arguments.rate, arguments.steps, decay=arguments.decay)
    mixed = arguments.dtype == "bfloat16" or (arguments.dtype == "auto" and _has_amx())
    trainer = Trainer(_lesson(arguments), arguments.run, pace, mixed=mixed)
    return trainer.run(grade_every=arguments.grade_every, save_every=100)


def _has_amx() -> bool:
    """Whether the processor multiplies bfloat16 in tiles; without, float32 is quicker."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _lesson(arguments: argparse.Namespace) -> Lesson:
    run: Path = arguments.run
    if arguments.lesson == "vision":
        return VisionLesson(arguments.most_patches, arguments.batch or 3072)
    checkpoints = [run / f"{name}.pt" for name in ("answers", "vision")]
    if not any(file.exists() for file in checkpoints):
        restore(COMMITTED, run)
    lesson = AnswersLesson(vocabulary(run), arguments.most_patches, arguments.batch or 8192)
    if not (run / "answers.pt").exists():
        lesson.begin_from(run / "vision.pt")
    return lesson


def _write(arguments: argparse.Namespace) -> None:
    run: Path = arguments.run
    state = torch.load(run / "answers.pt", weights_only=True)
    lesson = AnswersLesson(vocabulary(run), most_patches=1, batch_tokens=1)
    lesson.model.load_state_dict(state["average"])
    if arguments.lesson == "serve":
        export(lesson, arguments.to)
    else:
        scores = json.loads(arguments.scores.read_text()) if arguments.scores else {}
        bundle(lesson, run, arguments.to, scores)
    print(f"{arguments.to}: step {state['step']}, {state['pictures']} pictures")


def vocabulary(run: Path) -> Vocabulary:
    """The one in ``run``; written there the first time."""
    file = run / "vocabulary.json"
    if not file.exists():
        file.write_text(json.dumps(sorted(dialogue_ids())), encoding="utf-8")
    return Vocabulary(json.loads(file.read_text(encoding="utf-8")), TRAINED.text.vocab_size)


if __name__ == "__main__":
    main()
