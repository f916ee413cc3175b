"""``python -m ops.dashboards`` writes dashboards/ anew; ``--check`` only says what would change."""

from __future__ import annotations

from pathlib import Path

from ops.dashboards.rules import RUNBOOKS, alerts_file, recording_file

ROOT = Path(__file__).parents[2] / "dashboards"


def files(runbooks: str = RUNBOOKS) -> dict[str, str]:
    return {
        "rules/recording.yml": recording_file(),
        "rules/alerts.yml": alerts_file(runbooks),
    }


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text)
