"""The model card, from what was trained and how it was graded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """\
# pixtral-nano

A small Pixtral that sees: Pixtral Large's architecture (vision encoder with 2D RoPE, projector
without biases, decoder with grouped queries, Large's tokenizer and special tokens) with
{parameters:.1f} M parameters, {tables:.1f} M of them in the two vocabulary tables. It lies in this
repository so that a first question gets a real answer, and so that a change to the serving path
that harms accuracy is seen.

It knows simple drawn pictures and nothing else. Photographs, other languages, handwriting,
arithmetic and general knowledge are beyond it.

## What it is asked

| task | e.g. |
|---|---|
| shape, colour, count, position, presence | "What colour is the star?" |
| description | "What is in this picture?" |
| comparison of two pictures | "Which picture has more circles?" |
| word, number | "What does it say?" |
| receipt | "What is the total?", "How much is the tea?" |
| chart | "Which bar is tallest?", "What is the value of Mon?" |
| json | "Give shape and colour as JSON." |
| follow_up | "And the square?" |
| no_picture | a question about a picture that was not sent |

Eight shapes, eleven colours, up to six things in a picture; print from 12 pixels on; 32 x 32 to
256 x 256 pixels.

## Accuracy

On the test set: typefaces, words and seeds that training and validation never saw. Asked over the
REST API (`pixtral eval`), greedy{ran}.

{table}

## Training

{training}

Of the lesson `vision`, the first 1,000 steps were taken by AdamW, those after by Muon, and pages
full of print joined after step 1,250; the commands below do both from the start.

Data: pictures drawn by `ops/nano/drawing` and questions from `ops/nano/questions`, both by seed.
Nothing was downloaded and no other model was used. Typefaces: Apache-2.0, SIL Open Font License and
Bitstream Vera licence; pictures of their letters were learned from, the fonts themselves are not
included. Again, from nothing:

    pip install -e '.[cpu,nano]'
    python -m ops.nano.train vision  --run DIR --steps {vision_steps}
    python -m ops.nano.train answers --run DIR --steps {answer_steps}
    python -m ops.nano.train export  --run DIR --to ops/nano/model

How accuracy grew is drawn in `curve.png`.

## Licence

Apache-2.0, as the rest of the repository.
"""


def card(
    parameters: int,
    tables: int,
    lessons: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Any],
) -> str:
    """As Markdown.

    Args:
        lessons: by name, the last line of each log.
        scores: what `pixtral eval --json` printed; empty where it was not graded.
    """
    return _CARD.format(
        parameters=parameters / 1e6,
        tables=tables / 1e6,
        ran="" if scores else "; not graded yet",
        table=_table(scores),
        training="\n".join(_lesson(name, last) for name, last in lessons.items()),
        vision_steps=lessons["vision"]["step"],
        answer_steps=lessons["answers"]["step"],
    )


def _table(scores: Mapping[str, Any]) -> str:
    rows = ["| task | questions | accuracy | valid JSON |", "|---|---:|---:|---:|"]
    for row in scores.get("tasks", ()):
        valid = "" if row["valid"] is None else f"{row['valid']:.1%}"
        rows.append(f"| {row['task']} | {row['questions']} | {row['score']:.1%} | {valid} |")
    return "\n".join(rows)


def _lesson(name: str, last: Mapping[str, Any]) -> str:
    return (
        f"- lesson `{name}`: {last['step']:,} steps, {last['pictures']:,} pictures,"
        f" {last['cpu_s'] / 60:.0f} minutes of one core (Sapphire Rapids, products in bfloat16)"
    )
