"""A compact copy of a run: what another machine needs to go on with it.

Averaged weights in bfloat16, with trained rows of the vocabulary only (10 MB), and beside them the
vocabulary, the logs and how far it came. Optimizers start anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

COMMITTED = Path(__file__).parent
_WEIGHTS, _FACTS = "state.safetensors", "state.json"
_LOGS = ("vision.jsonl", "answers.jsonl")
_COUNTS = ("step", "pictures", "cpu_s")


def save(run: Path, folder: Path) -> None:
    """Write the newest checkpoint of the lesson ``answers`` in ``run`` to ``folder``."""
    state = torch.load(run / "answers.pt", weights_only=True)
    weights = {name: weight.bfloat16().contiguous() for name, weight in state["average"].items()}
    save_file(weights, folder / _WEIGHTS)
    facts = {
        **{name: state[name] for name in _COUNTS},
        "pace": state["pace"],
        "vocabulary": json.loads((run / "vocabulary.json").read_text(encoding="utf-8")),
        "logs": {
            name: (run / name).read_text(encoding="utf-8").splitlines()
            for name in _LOGS
            if (run / name).exists()
        },
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def restore(folder: Path, run: Path) -> bool:
    """Lay out ``run`` as the saved one was; False where ``folder`` holds none."""
    if not (folder / _FACTS).exists():
        return False
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    weights = {name: weight.float() for name, weight in load_file(folder / _WEIGHTS).items()}
    run.mkdir(parents=True, exist_ok=True)
    for name, lines in facts["logs"].items():
        (run / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (run / "vocabulary.json").write_text(json.dumps(facts["vocabulary"]), encoding="utf-8")
    counts = {name: facts[name] for name in _COUNTS}
    state = {**counts, "pace": facts["pace"], "model": weights, "average": weights}
    torch.save(state, run / "answers.pt")
    return True
