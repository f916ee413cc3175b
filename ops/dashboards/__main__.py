"""Write dashboards/ anew, or print it as a Kubernetes cluster takes it.

    python -m ops.dashboards [--runbooks BASE] [--output FOLDER]
    python -m ops.dashboards kubernetes [--runbooks BASE] [--namespace NAME] [--label KEY=VALUE]

``--runbooks`` is what links to runbooks begin with, for example the address of a wiki. ``--label``
is what the cluster's Prometheus selects rules by, often release=NAME of its chart.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ops.dashboards import kubernetes
from ops.dashboards.boards import BOARDS
from ops.dashboards.grafana import render
from ops.dashboards.rules import alerts_file, recording_file
from ops.deploy.manifests import documents

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


def main(arguments: Sequence[str] | None = None) -> None:
    usage = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m ops.dashboards", description=__doc__, formatter_class=usage
    )
    parser.add_argument("--runbooks", default=RUNBOOKS, metavar="BASE")
    parser.add_argument("--output", default=ROOT, type=Path, metavar="FOLDER")
    cluster = parser.add_subparsers(dest="form").add_parser("kubernetes")
    cluster.add_argument("--runbooks", default=RUNBOOKS, metavar="BASE")
    cluster.add_argument("--namespace", default=kubernetes.NAMESPACE, metavar="NAME")
    cluster.add_argument("--label", default=[], action="append", metavar="KEY=VALUE")
    asked = parser.parse_args(arguments)
    if asked.form == "kubernetes":
        try:
            labels = kubernetes.parsed_labels(asked.label)
        except ValueError as error:
            parser.error(str(error))
        made = kubernetes.manifests(files(asked.runbooks), asked.namespace, labels)
        print(documents(made), end="")
        return
    for name, text in files(asked.runbooks).items():
        file = asked.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        print(file)


if __name__ == "__main__":
    main()
