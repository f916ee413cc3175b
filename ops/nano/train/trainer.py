"""The loop: draws batches beside it, steps, averages weights, grades, saves, and goes on."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils.data import DataLoader

from ops.nano.train.lesson import Lesson


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to learn: warm-up, then steady, then linearly to nothing.

    Attributes:
        steps: of the whole lesson so far; a later run may set more.
        decay: of those, the last ones, over which the rate falls.
        momentum: of the running average of the weights, which is what is graded and exported.
    """

    rate: float
    steps: int
    warmup: int = 200
    decay: int = 0
    weight_decay: float = 0.02
    momentum: float = 0.998

    def rate_at(self, step: int) -> float:
        falling = (self.steps - step) / self.decay if self.decay else 1.0
        return self.rate * min(1.0, (step + 1) / self.warmup, max(falling, 0.0))


class Trainer:
    """Trains one lesson in ``folder``; made again there, it goes on where it was.

    Attributes:
        mixed: whether products are in bfloat16; weights and sums are float32 anyhow.
        step, pictures: taken and shown so far.
        cpu_s: seconds of CPU that it took, drawing included, over all runs.
    """

    def __init__(self, lesson: Lesson, folder: Path, pace: Pace, *, mixed: bool) -> None:
        self.lesson = lesson
        self.mixed = mixed
        self.pace = pace
        self.step = 0
        self.pictures = 0
        self.cpu_s = 0.0
        self._folder = folder
        self._average = copy.deepcopy(lesson.model).requires_grad_(False)
        self._optimizers = _optimizers(lesson.model, pace)
        if self._file.exists():
            self._load()

    @property
    def _file(self) -> Path:
        return self._folder / f"{self.lesson.name}.pt"

    def run(self, *, grade_every: int, save_every: int) -> None:
        """Until ``pace.steps``."""
        loader = DataLoader(
            self.lesson.batches,
            batch_size=None,
            sampler=range(self.step, self.pace.steps),
            num_workers=1,
            prefetch_factor=8,
            multiprocessing_context="fork",
        )
        losses: list[float] = []
        started, before = time.monotonic(), self.pictures
        cpu_before, cpu_started = self.cpu_s, _cpu_s()
        for batch in loader:
            losses.append(self._learn(batch))
            self.pictures += self.lesson.pictures(batch)
            self.step += 1
            self.cpu_s = cpu_before + _cpu_s() - cpu_started
            if self.step % grade_every == 0:
                rate = (self.pictures - before) / (time.monotonic() - started)
                self._note(sum(losses) / len(losses), rate)
                losses.clear()
                started, before = time.monotonic(), self.pictures
            if self.step % save_every == 0:
                self._save()
        self._save()

    def _learn(self, batch: Any) -> float:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.pace.rate_at(self.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            loss = self.lesson.loss(batch)
        self.lesson.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.lesson.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        # The first weights are worth forgetting: at first the average is a short one.
        momentum = min(self.pace.momentum, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._average.parameters()),
                list(self.lesson.model.parameters()),
                1 - momentum,
            )
        return float(loss.detach())

    def _note(self, loss: float, rate: float) -> None:
        entry = {
            "step": self.step,
            "pictures": self.pictures,
            "loss": round(loss, 4),
            "rate": self.pace.rate_at(self.step),
            "pictures_per_s": round(rate, 1),
            "cpu_s": round(self.cpu_s),
            "accuracy": {name: round(share, 4) for name, share in self._graded().items()},
        }
        with (self._folder / f"{self.lesson.name}.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)

    def _graded(self) -> dict[str, float]:
        """Of the averaged weights; the trained ones are put back."""
        kept = copy.deepcopy(self.lesson.model.state_dict())
        self.lesson.model.load_state_dict(self._average.state_dict())
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
                return self.lesson.grade()
        finally:
            self.lesson.model.load_state_dict(kept)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "pictures": self.pictures,
            "cpu_s": self.cpu_s,
            "pace": asdict(self.pace),
            "model": self.lesson.model.state_dict(),
            "average": self._average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        fresh = self._file.with_suffix(".fresh")
        torch.save(state, fresh)
        fresh.rename(self._file)

    def _load(self) -> None:
        state = torch.load(self._file, weights_only=True)
        self.step, self.pictures, self.cpu_s = state["step"], state["pictures"], state["cpu_s"]
        self.lesson.model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        for optimizer, kept in zip(self._optimizers, state.get("optimizers", ()), strict=False):
            optimizer.load_state_dict(kept)


def _optimizers(model: nn.Module, pace: Pace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embeddings and heads, AdamW for all else."""
    inner, tables, vectors = [], [], []
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            vectors.append(weight)
        elif ".layers." in name or "adapter" in name:
            inner.append(weight)
        else:
            tables.append(weight)
    muon = torch.optim.Muon(
        inner,
        lr=pace.rate,
        weight_decay=pace.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": tables, "weight_decay": pace.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [muon, torch.optim.AdamW(groups, lr=pace.rate, betas=(0.9, 0.98), fused=True)]


def _cpu_s() -> float:
    """Of this process and of the one that draws."""
    drawing = sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())
    return time.process_time() + drawing
