"""The learning curve: accuracy on the validation set against pictures seen, a panel a lesson."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LESSONS = ("vision", "answers")


def plot(run: Path, file: Path) -> None:
    """Draw every lesson that ``run`` holds a log of; the file's suffix names its format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {name: _entries(run / f"{name}.jsonl") for name in _LESSONS}
    figure, panels = pyplot.subplots(1, len(logs), figsize=(13, 5), sharey=True)
    for panel, (name, entries) in zip(panels, logs.items(), strict=True):
        panel.set_prop_cycle(color=pyplot.colormaps["tab20"].colors)
        panel.set_title(name)
        panel.set_xlabel("pictures seen")
        for task in _tasks(entries):
            points = [
                (entry["pictures"], entry["accuracy"][task])
                for entry in entries
                if task in entry["accuracy"]
            ]
            panel.plot(*zip(*points, strict=True), label=task.replace("_", " "))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("accuracy, validation set")
    figure.tight_layout()
    figure.savefig(file, dpi=90)


def _entries(log: Path) -> list[dict[str, Any]]:
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _tasks(entries: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({task for entry in entries for task in entry["accuracy"]})
