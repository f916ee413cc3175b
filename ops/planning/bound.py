"""How many tokens a decoder group could produce at best: a bound, never a measurement.

Memory bandwidth and arithmetic of the GPUs' data sheets (``shards/roofline.py``); communication,
launches, attention's arithmetic and the vision tier are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.planning.machines import Machine
from ops.problem import Problem
from serve_app.config import Config, value_bytes
from shards.config import ModelConfig
from shards.plan import kv_bytes_per_token, rank_parameters
from shards.roofline import Hardware, Roofline, Work, a100s

# One GPU each, by NVIDIA's data sheets, dense bfloat16.
_GPUS: Mapping[str, Hardware] = {
    "A100-80GB-SXM": a100s(1),
    "A100-80GB-PCIe": Hardware(bytes_per_s=1.935e12, flops_per_s=312e12),
}


@dataclass(frozen=True, slots=True)
class Mix:
    """What a request is on average, in tokens; a prompt's pictures count in it."""

    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Of one group at the mix.

    Attributes:
        batch: sequences side by side, limited by the config or by the KV cache.
        alone_tokens_per_s: of one answer that has the group to itself.
        answer_tokens_per_s, prompt_tokens_per_s: of all together, prompts computed in between.
    """

    batch: int
    alone_tokens_per_s: float
    answer_tokens_per_s: float
    prompt_tokens_per_s: float


def group_bound(
    config: Config, model: ModelConfig, machine: Machine, mix: Mix, kv_tokens: int
) -> Bound:
    """Raises Problem for a GPU whose data sheet is not known, or a mix that no cache holds."""
    decoder = config.decoder
    one = _GPUS.get(machine.gpu)
    if one is None:
        raise Problem(
            f"{machine.name}: nothing is known of {machine.gpu or 'a machine without GPUs'} as a"
            f" decoder; known are {', '.join(_GPUS)}"
        )
    ranks = decoder.tensor_parallel
    hardware = Hardware(ranks * one.bytes_per_s, ranks * one.flops_per_s)
    roofline = Roofline(decoder_work(model, value_bytes(decoder.dtype, "cuda")), hardware)
    whole = mix.prompt_tokens + mix.answer_tokens
    batch = min(decoder.max_batch_sequences, kv_tokens // whole)
    if batch < 1:
        raise Problem(f"a request of {whole} tokens does not fit a KV cache of {kv_tokens}")
    halfway = mix.prompt_tokens + mix.answer_tokens // 2
    step_s = roofline.step_s(batch, batch * (halfway + 1))
    prefill_s = roofline.step_s(mix.prompt_tokens, mix.prompt_tokens)
    # Each of the batch's requests takes its share of the steps, and the group's time to prefill.
    requests_per_s = 1 / (prefill_s + mix.answer_tokens * step_s / batch)
    return Bound(
        batch=batch,
        alone_tokens_per_s=1 / roofline.step_s(1, halfway + 1),
        answer_tokens_per_s=requests_per_s * mix.answer_tokens,
        prompt_tokens_per_s=requests_per_s * mix.prompt_tokens,
    )


def decoder_work(model: ModelConfig, width: int) -> Work:
    """All of the decoder but the embedding table, of which a step reads a few rows."""
    read = rank_parameters(model).decoder - model.text.vocab_size * model.text.dim
    return Work(
        weight_bytes=read * width,
        flops_per_token=2.0 * read,
        kv_bytes_per_token=kv_bytes_per_token(model, 1, width),
    )
