"""Write dashboards/ anew: ``python -m ops.dashboards [--runbooks BASE] [--output FOLDER]``.

``--runbooks`` is what links to runbooks begin with, for example the address of a wiki.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.dashboards.boards import BOARDS
from ops.dashboards.grafana import render
from ops.dashboards.rules import alerts_file, recording_file

ROOT = Path(__file__).parents[2] / "dashboards"
RUNBOOKS = "ops/runbooks"


def files(runbooks: str = RUNBOOKS) -> dict[Path, str]:
    """What lies in ``dashboards/``, by path within it."""
    return {
        Path("rules/recording.yml"): recording_file(),
        Path("rules/alerts.yml"): alerts_file(runbooks),
        **{
            Path("generated", f"{board.uid}.json"): render(board, runbooks)
            for board in (make() for make in BOARDS)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.dashboards", description=__doc__)
    parser.add_argument("--runbooks", default=RUNBOOKS, metavar="BASE")
    parser.add_argument("--output", default=ROOT, type=Path, metavar="FOLDER")
    asked = parser.parse_args()
    for name, text in files(asked.runbooks).items():
        file = asked.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        print(file)


if __name__ == "__main__":
    main()
