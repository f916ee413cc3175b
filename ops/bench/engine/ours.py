"""Our engine on the measured model, in this process, with pictures encoded as part of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ops.bench.engine.model import Model
from ops.bench.engine.prompts import Prompt
from ops.bench.engine.run import Run
from shards.comm import Communicator, SingleRank
from shards.engine import Engine
from shards.grid import Grid
from shards.lockstep import Leader
from shards.request import GenerationRequest, Sampling
from shards.runner import ModelRunner
from shards.tokenizer import Tokenizer
from shards.vision_model import VisionEncoder

if TYPE_CHECKING:
    from shards.step import Runner

BLOCK = 16
CPU = torch.device("cpu")
_FEATURES_KEPT = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the engine. ``kv_bytes`` is per rank.

    Attributes:
        options: further keywords of ``Engine``.
    """

    sequences: int = 16
    step_tokens: int = 512
    context: int = 4096
    kv_bytes: int = 512 * 2**20
    options: tuple[tuple[str, Any], ...] = ()


class Ours:
    """One engine for all the runs that are made with it, as in a server.

    Attributes:
        encoded: patches that the encoder has computed.
    """

    def __init__(self, model: Model, runner: Runner, num_blocks: int, settings: Settings) -> None:
        self.model = model
        self.encoded = 0
        self.vocabulary = Tokenizer.from_folder(model.folder).vocabulary
        self._runner = runner
        self._encoder: VisionEncoder | None = None
        self._features: dict[str, np.ndarray] = {}
        self._asked = 0
        self.engine = Engine(
            runner,
            vocabulary=self.vocabulary,
            num_blocks=num_blocks,
            block_size=BLOCK,
            max_context_tokens=settings.context,
            max_batch_sequences=settings.sequences,
            max_step_tokens=settings.step_tokens,
            max_waiting=10_000,
            **dict(settings.options),
        )

    @classmethod
    def load(
        cls, model: Model, settings: Settings = Settings(), comm: Communicator | None = None
    ) -> Ours:
        """On rank 0 of ``comm``, whose other ranks follow; on one rank without it."""
        own = comm or SingleRank()
        runner = load_runner(model, own, settings)
        return cls(model, Leader(runner, own), runner.num_blocks, settings)

    @property
    def bans(self) -> frozenset[int]:
        """Ids that no answer of a run contains."""
        vocabulary = self.vocabulary
        return (vocabulary.control_ids - vocabulary.answer_ids) | {vocabulary.eos_id}

    def run(self, prompts: Sequence[Prompt], new_tokens: int, **more: Any) -> Run:
        """Ask all at once, greedily, for exactly so many tokens each; encodes the pictures.

        Args:
            more: further fields of each ``GenerationRequest``.
        """
        started = time.perf_counter()
        self._encode(prompts)
        names = [self.ask(prompt, new_tokens, **more) for prompt in prompts]
        moments: list[tuple[float, int]] = []
        answers: dict[str, list[int]] = {name: [] for name in names}
        silent = set(names)
        begun_s = 0.0
        while self.engine.has_work:
            deltas = self.engine.step()
            at = time.perf_counter() - started
            drawn = 0
            for delta in deltas:
                drawn += len(delta.token_ids)
                answers[delta.request_id] += delta.token_ids
                if delta.token_ids and silent:
                    silent.discard(delta.request_id)
                    begun_s = at
            if drawn:
                moments.append((at, drawn))
        return Run(tuple(tuple(answers[name]) for name in names), tuple(moments), begun_s)

    def ask(self, prompt: Prompt, new_tokens: int, **more: Any) -> str:
        """Add a request, its picture encoded here and now unless it is known; returns its id.

        Args:
            more: further fields of ``GenerationRequest``.
        """
        return self.submit(prompt, self.features(prompt), new_tokens, **more)

    def submit(
        self, prompt: Prompt, features: Sequence[np.ndarray], new_tokens: int, **more: Any
    ) -> str:
        """Add a request whose picture is encoded already."""
        self._asked += 1
        name = str(self._asked)
        sampling = Sampling(seed=0, max_tokens=new_tokens, temperature=0, ignore_eos=True)
        request = GenerationRequest(name, prompt.token_ids, sampling, prompt.pictures, **more)
        self.engine.add(request, features)
        return name

    def features(self, prompt: Prompt) -> list[np.ndarray]:
        """Of the prompt's picture, before the projector; none for text.

        The last pictures' are kept by content, as the vision tier keeps them.
        """
        if prompt.patches is None:
            return []
        (picture,) = prompt.pictures
        self._encode([prompt])
        return [self._features[picture.content]]

    def abort_all(self) -> None:
        """End what was asked and is unfinished."""
        for number in range(self._asked):
            self.engine.abort(str(number + 1))

    def close(self) -> None:
        self._runner.close()

    def _encode(self, prompts: Sequence[Prompt]) -> None:
        """The pictures that are not kept, in one pass, as the vision tier takes those that wait."""
        new: dict[str, tuple[Grid, np.ndarray]] = {}
        for prompt in prompts:
            for picture in prompt.pictures:
                if prompt.patches is not None and picture.content not in self._features:
                    new[picture.content] = (picture.grid, prompt.patches)
        if not new:
            return
        if self._encoder is None:
            self._encoder = VisionEncoder.load(self.model.folder, device=CPU, dtype="float32")
        grids = [grid for grid, _ in new.values()]
        packed = self._encoder.encode(np.concatenate([array for _, array in new.values()]), grids)
        self.encoded += len(packed)
        parts = torch.split(packed, [grid.patches for grid in grids])
        self._features |= {name: part.numpy() for name, part in zip(new, parts, strict=True)}
        while len(self._features) > _FEATURES_KEPT:
            del self._features[next(iter(self._features))]


def load_runner(model: Model, comm: Communicator, settings: Settings) -> ModelRunner:
    return ModelRunner.load(
        model.folder,
        comm,
        device=CPU,
        dtype="float32",
        block_size=BLOCK,
        kv_cache_bytes=settings.kv_bytes,
    )
