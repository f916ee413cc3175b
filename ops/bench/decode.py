"""Decode speed of the engine beside transformers and the memory's own speed, in one run.

Both run the same shape in float32 on the same threads with random weights. A decode step reads
every weight but the embedding table once, so bytes per step over the bandwidth of this machine's
memory is the least a step can take.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ops.nano import NANO, write_checkpoint
from shards.comm import SingleRank
from shards.config import ModelConfig
from shards.engine import Engine
from shards.plan import rank_parameters
from shards.request import GenerationRequest, Sampling
from shards.runner import ModelRunner
from shards.tokenizer import Tokenizer

MODEL: ModelConfig = replace(
    NANO,
    text=replace(
        NANO.text, dim=1024, layers=16, heads=16, kv_heads=8, head_dim=64, hidden_dim=4096
    ),
)
PROMPT_TOKENS = 32
NEW_TOKENS = 24
BATCHES = (1, 8)
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Result:
    """One batch size. ``of_limit`` is the share of the step rate that memory bandwidth allows."""

    sequences: int
    engine_tokens_per_s: float
    transformers_tokens_per_s: float
    ratio: float
    weights_gb_per_s: float
    of_limit: float


def run(threads: int) -> list[Result]:
    """Measure every batch size."""
    torch.set_num_threads(threads)
    limit = _read_bandwidth()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, MODEL, dtype="bfloat16")
        engine = _engine_rate(folder)
        transformers = _transformers_rate()
        return [_result(batch, engine(batch), transformers(batch), limit) for batch in BATCHES]


def _result(batch: int, ours: float, theirs: float, limit: float) -> Result:
    """``ours``, ``theirs``: tokens/s over the batch; ``limit``: bytes/s."""
    text = MODEL.text
    step_bytes = 4 * (rank_parameters(MODEL).decoder - text.vocab_size * text.dim)
    read = ours / batch * step_bytes
    return Result(batch, ours, theirs, ours / theirs, read / 1e9, read / limit)


def _engine_rate(folder: Path) -> Callable[[int], float]:
    runner = ModelRunner.load(
        folder,
        SingleRank(),
        device=torch.device("cpu"),
        dtype="float32",
        block_size=_BLOCK,
        kv_cache_bytes=256 * 2**20,
    )
    vocabulary = Tokenizer.from_folder(folder).vocabulary

    def rate(batch: int) -> float:
        engine = Engine(
            runner,
            vocabulary=vocabulary,
            num_blocks=runner.num_blocks,
            block_size=_BLOCK,
            max_context_tokens=1024,
            max_batch_sequences=batch,
            max_step_tokens=batch * PROMPT_TOKENS,
            max_waiting=batch,
        )
        sampling = Sampling(seed=0, max_tokens=NEW_TOKENS + 1, temperature=0, ignore_eos=True)
        for number in range(batch):
            prompt = tuple(1000 + number + index for index in range(PROMPT_TOKENS))
            engine.add(GenerationRequest(str(number), prompt, sampling))
        engine.step()  # prefill, and everyone's first token
        started = time.perf_counter()
        tokens = 0
        while engine.has_work:
            tokens += len(engine.step())
        return tokens / (time.perf_counter() - started)

    return rate


def _transformers_rate() -> Callable[[int], float]:
    from transformers import MistralConfig, MistralForCausalLM

    text = MODEL.text
    config = MistralConfig(
        vocab_size=text.vocab_size,
        hidden_size=text.dim,
        intermediate_size=text.hidden_dim,
        num_hidden_layers=text.layers,
        num_attention_heads=text.heads,
        num_key_value_heads=text.kv_heads,
        head_dim=text.head_dim,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    model = MistralForCausalLM(config).eval()

    def rate(batch: int) -> float:
        prompt = torch.randint(20, text.vocab_size, (batch, PROMPT_TOKENS))
        seconds = [_seconds(model, prompt, count) for count in (1, NEW_TOKENS + 1)]
        return batch * NEW_TOKENS / (seconds[1] - seconds[0])

    return rate


@torch.inference_mode()
def _seconds(model: Any, prompt: torch.Tensor, tokens: int) -> float:
    started = time.perf_counter()
    model.generate(
        prompt, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=2
    )
    return time.perf_counter() - started


def _read_bandwidth() -> float:
    """Bytes/s at which this machine's memory is read, the best of five."""
    values = torch.ones(2**28)
    values.sum()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        values.sum()
        times.append(time.perf_counter() - started)
    return values.numel() * 4 / min(times)
