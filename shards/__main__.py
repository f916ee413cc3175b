"""Ask a model a question, without a server.

python -m shards DIR --tp 2 --image cat.jpg "What is in this picture?"

The answer streams to stdout; its counts and speed go to stderr. Every rank is a process of its
own, watched by this one. Exit status: 0 answered, 1 a rank failed, 2 refused as asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from shards.errors import ShardsError
from shards.offline import Place, Report, prepare
from shards.processes import run_ranks
from shards.request import Sampling

ANSWERED, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        job = prepare(_place(options), options.question, options.image, _sampling(options))
    except ShardsError as error:
        return _fail(error, REFUSED)
    streams = options.n == 1 and not options.json
    try:
        report = run_ranks(job, _write if streams else _swallow)
    except ShardsError as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    _print_report(report, options.json)
    return ANSWERED


def _fail(error: ShardsError, status: int) -> int:
    print(f"python -m shards: {error}", file=sys.stderr)
    return status


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(report)))
    elif len(report.choices) == 1:
        print()
    else:
        for index, choice in enumerate(report.choices):
            print(f"[{index}] {choice.text}")
    print(report, file=sys.stderr)


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _swallow(text: str) -> None:
    del text


def _place(options: argparse.Namespace) -> Place:
    dtype = options.dtype
    if dtype == "auto":
        dtype = "float32" if options.device == "cpu" else "bfloat16"
    threads = max(1, (os.cpu_count() or 1) // max(1, options.tp))
    return Place(options.folder, options.tp, options.device, dtype, threads)


def _sampling(options: argparse.Namespace) -> Sampling:
    return Sampling(
        seed=options.seed,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        n=options.n,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a Pixtral checkpoint, any layout")
    parser.add_argument("question")
    parser.add_argument("--image", metavar="FILE", type=Path, action="append", default=[])
    parser.add_argument("--tp", metavar="N", type=int, default=1, help="ranks to cut it over")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--max-tokens", metavar="N", type=int, default=256)
    parser.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top-p", metavar="P", type=float, default=1.0)
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    parser.add_argument("--n", metavar="N", type=int, default=1, help="answers to the question")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
