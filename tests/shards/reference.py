"""Tiny random Pixtrals under transformers, the oracle, and their checkpoints in both layouts.

A 12B-like one (projector bias, heads x head_dim != dim, break/end 12/13) and a Large-like one (no
bias, vision head_dim 88, break/end 14/15).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
)

from tests.shards.prompts import IMAGE_ID, PATCH, VOCABULARY, Prompt, prompts


@dataclass(frozen=True)
class Family:
    """What differs between the two models."""

    name: str
    dim: int
    heads: int
    head_dim: int
    vision_head_dim: int
    bias: bool
    image_break: int
    image_end: int
    text_theta: float

    def config(self) -> LlavaConfig:
        vision = PixtralVisionConfig(
            hidden_size=2 * self.vision_head_dim,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=128,
            patch_size=PATCH,
            hidden_act="silu",
            rope_parameters={"rope_type": "axial", "rope_theta": 10000.0},
        )
        text = MistralConfig(
            vocab_size=VOCABULARY,
            hidden_size=self.dim,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=self.heads,
            num_key_value_heads=4,
            head_dim=self.head_dim,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": self.text_theta},
            sliding_window=None,
        )
        return LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=IMAGE_ID,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            multimodal_projector_bias=self.bias,
        )

    def model(self, seed: int = 0) -> LlavaForConditionalGeneration:
        """Random weights large enough that every path shows in the logits."""
        model = LlavaForConditionalGeneration(self.config()).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
                else:
                    fan_in = parameter[0].numel()
                    parameter.normal_(0, fan_in**-0.5, generator=generator)
            model.get_input_embeddings().weight.normal_(0, 1, generator=generator)
        return model

    def prompts(self) -> dict[str, Prompt]:
        return prompts(self.image_break, self.image_end)


FAMILIES = {
    "12b": Family("12b", 96, 8, 16, 64, True, 12, 13, 1e9),
    "large": Family("large", 128, 8, 16, 88, False, 14, 15, 1e6),
}


@torch.inference_mode()
def expected(
    model: LlavaForConditionalGeneration, prompt: Prompt, count: int
) -> tuple[list[int], Tensor]:
    """transformers' greedy tokens (never [IMG]) and the logits [count, vocabulary] behind them."""
    inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.token_ids])}
    if prompt.pixels:
        tallest = max(picture.shape[1] for picture in prompt.pixels)
        widest = max(picture.shape[2] for picture in prompt.pixels)
        padded = torch.zeros(len(prompt.pixels), 3, tallest, widest)
        for row, picture in zip(padded, prompt.pixels, strict=True):
            row[:, : picture.shape[1], : picture.shape[2]] = picture
        inputs["pixel_values"] = padded
        inputs["image_sizes"] = torch.tensor([picture.shape[1:] for picture in prompt.pixels])
    tokens: list[int] = []
    logits = []
    while len(tokens) < count:
        output = model(**inputs, use_cache=True)
        logits.append(output.logits[0, -1])
        allowed = logits[-1].clone()
        allowed[IMAGE_ID] = -torch.inf
        tokens.append(int(allowed.argmax()))
        inputs = {
            "input_ids": torch.tensor([tokens[-1:]]),
            "past_key_values": output.past_key_values,
        }
    return tokens, torch.stack(logits)


def save_hf(model: LlavaForConditionalGeneration, folder: Path, sharded: bool = False) -> Path:
    model.save_pretrained(folder, max_shard_size="200KB" if sharded else "1GB")
    return folder


def save_mistral(model: LlavaForConditionalGeneration, folder: Path, files: int = 1) -> Path:
    """The same weights as Mistral publishes them; names and row order worked out here anew."""
    folder.mkdir()
    config = model.config
    text, vision = config.text_config, config.vision_config
    params = {
        "dim": text.hidden_size,
        "n_layers": text.num_hidden_layers,
        "head_dim": text.head_dim,
        "hidden_dim": text.intermediate_size,
        "n_heads": text.num_attention_heads,
        "n_kv_heads": text.num_key_value_heads,
        "norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_parameters["rope_theta"],
        "vocab_size": text.vocab_size,
        "vision_encoder": {
            "hidden_size": vision.hidden_size,
            "num_channels": vision.num_channels,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "rope_theta": vision.rope_parameters["rope_theta"],
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_token_id": config.image_token_id,
            "adapter_bias": config.multimodal_projector_bias,
        },
    }
    (folder / "params.json").write_text(json.dumps(params))
    language, tower = model.model.language_model, model.model.vision_tower
    projector = model.model.multi_modal_projector
    tensors = {
        "tok_embeddings.weight": language.embed_tokens.weight,
        "norm.weight": language.norm.weight,
        "output.weight": model.lm_head.weight,
        "vision_encoder.patch_conv.weight": tower.patch_conv.weight,
        "vision_encoder.ln_pre.weight": tower.ln_pre.weight,
    }
    for ours, theirs in (("w_in", projector.linear_1), ("w_out", projector.linear_2)):
        for kind, tensor in theirs.named_parameters():
            tensors[f"vision_language_adapter.{ours}.{kind}"] = tensor
    for index, layer in enumerate(language.layers):
        prefix = f"layers.{index}."
        tensors[prefix + "attention_norm.weight"] = layer.input_layernorm.weight
        tensors[prefix + "ffn_norm.weight"] = layer.post_attention_layernorm.weight
        tensors |= _block(prefix, layer.self_attn, layer.mlp, text.head_dim)
    for index, layer in enumerate(tower.transformer.layers):
        prefix = f"vision_encoder.transformer.layers.{index}."
        tensors[prefix + "attention_norm.weight"] = layer.attention_norm.weight
        tensors[prefix + "ffn_norm.weight"] = layer.ffn_norm.weight
        head_dim = vision.hidden_size // vision.num_attention_heads
        tensors |= _block(prefix, layer.attention, layer.feed_forward, head_dim)
    names = sorted(tensors)
    for number in range(files):
        name = f"consolidated-{number + 1:05}-of-{files:05}" if files > 1 else "consolidated"
        shard = {key: tensors[key].detach().clone() for key in names[number::files]}
        save_file(shard, folder / f"{name}.safetensors")
    return folder


def _block(prefix: str, attention: Any, feed_forward: Any, head_dim: int) -> dict[str, Tensor]:
    return {
        prefix + "attention.wq.weight": _pairs_from_halves(attention.q_proj.weight, head_dim),
        prefix + "attention.wk.weight": _pairs_from_halves(attention.k_proj.weight, head_dim),
        prefix + "attention.wv.weight": attention.v_proj.weight,
        prefix + "attention.wo.weight": attention.o_proj.weight,
        prefix + "feed_forward.w1.weight": feed_forward.gate_proj.weight,
        prefix + "feed_forward.w2.weight": feed_forward.down_proj.weight,
        prefix + "feed_forward.w3.weight": feed_forward.up_proj.weight,
    }


def _pairs_from_halves(rows: Tensor, head_dim: int) -> Tensor:
    """Row j and row j + head_dim/2 of each head become neighbours, written row by row."""
    paired = torch.empty_like(rows)
    half = head_dim // 2
    for head in range(0, len(rows), head_dim):
        for j in range(half):
            paired[head + 2 * j] = rows[head + j]
            paired[head + 2 * j + 1] = rows[head + half + j]
    return paired
