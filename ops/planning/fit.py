"""Whether a rank's share of the model fits its GPU, byte by byte. Arithmetic, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from ops.memory import GIB
from ops.planning.machines import Machine
from serve_app.config import Config, value_bytes
from shards.config import ModelConfig
from shards.plan import kv_bytes_per_token, rank_parameters

# CUDA's context, NCCL's buffers, the allocator's fragments and captured graphs. Assumed: nothing
# has run on a GPU yet.
RUNTIME_BYTES = 4 * GIB


@dataclass(frozen=True, slots=True)
class Fit:
    """One GPU of a decoder group that shares with the vision tier where that does.

    Attributes:
        weights, kv_cache, activations, vision, runtime: bytes.
        available: bytes of the GPU.
        kv_tokens: of the whole group, as each rank keeps its own heads of every token.
    """

    weights: int
    kv_cache: int
    activations: int
    vision: int
    runtime: int
    available: int
    kv_tokens: int

    @property
    def used(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.vision + self.runtime

    @property
    def fits(self) -> bool:
        return self.used <= self.available


def decoder_fit(config: Config, model: ModelConfig, machine: Machine) -> Fit:
    """Raises PlanError where the ranks do not cut the model evenly."""
    decoder = config.decoder
    width = value_bytes(decoder.dtype, "cuda")
    share = rank_parameters(model, decoder.tensor_parallel)
    kv_token = kv_bytes_per_token(model, decoder.tensor_parallel, width)
    return Fit(
        weights=(share.decoder + share.projector) * width,
        kv_cache=decoder.kv_cache_bytes,
        activations=_decoder_activations(config, model) * width,
        vision=vision_bytes(config, model) if vision_shares(config) else 0,
        runtime=RUNTIME_BYTES,
        available=machine.gpu_memory_gib * GIB,
        kv_tokens=decoder.kv_cache_bytes // (decoder.block_size * kv_token) * decoder.block_size,
    )


def vision_shares(config: Config) -> bool:
    """Whether an encoder lives on what a decoder's rank leaves of its GPU."""
    vision = config.vision
    return vision.device == "cuda" and vision.num_gpus + config.decoder.gpus_per_rank <= 1


def vision_bytes(config: Config, model: ModelConfig) -> int:
    """Weights and the largest packed pass: a layer's input, output, q, k, v and feed-forward."""
    vision = model.vision
    per_patch = 6 * vision.hidden_size + 2 * vision.intermediate_size
    values = rank_parameters(model).vision + config.vision.max_batch_patches * per_patch
    return values * value_bytes(config.vision.dtype, "cuda")


def _decoder_activations(config: Config, model: ModelConfig) -> int:
    """Numbers alive in the largest step: a layer's input, output and cut insides, and logits."""
    decoder, text = config.decoder, model.text
    ranks = decoder.tensor_parallel
    heads = (text.heads + 2 * text.kv_heads) * text.head_dim // ranks
    per_token = 3 * text.dim + heads + 2 * text.hidden_dim // ranks
    # Logits are float32 and whole on each rank: two of our values each, and a copy.
    return decoder.max_step_tokens * per_token + 4 * decoder.max_batch_sequences * text.vocab_size
