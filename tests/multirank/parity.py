"""What one rank does in the parity test. Imported by the ranks, so no transformers in here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shards.comm import Communicator
from shards.runner import ModelRunner
from shards.vision_model import VisionEncoder
from tests.shards.prompts import Prompt
from tests.shards.sequences import DrivenSequence, generate, scattered_blocks

CPU = torch.device("cpu")
Answer = tuple[list[int], Tensor]


@dataclass(frozen=True)
class Job:
    """A checkpoint, and prompts to answer with it, all in one batch."""

    folder: Path
    prompts: dict[str, Prompt]


def answer_all(
    comm: Communicator, jobs: dict[str, Job], count: int
) -> dict[tuple[str, str], Answer]:
    """Greedy tokens and their logits by (job, prompt)."""
    answers = {}
    for name, job in jobs.items():
        encoder = VisionEncoder.load(job.folder, device=CPU, dtype="float32")
        runner = ModelRunner.load(
            job.folder, comm, device=CPU, dtype="float32", block_size=8, kv_cache_bytes=2**20
        )
        blocks = scattered_blocks(runner, len(job.prompts))
        sequences = [
            DrivenSequence(runner, title, prompt, encode(encoder, prompt), own)
            for (title, prompt), own in zip(job.prompts.items(), blocks, strict=True)
        ]
        for title, answer in zip(job.prompts, generate(runner, sequences, count), strict=True):
            answers[name, title] = answer
    return answers


def encode(encoder: VisionEncoder, prompt: Prompt):
    """Features of all the prompt's pictures in one packed pass; None without pictures."""
    return encoder.encode(prompt.patches(), prompt.grids).numpy() if prompt.grids else None
