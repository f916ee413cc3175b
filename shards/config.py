"""The shape of a Pixtral model, read from either checkpoint layout. Standard library only.

``params.json`` (Mistral) and ``config.json`` (Hugging Face) describe the same model; nothing that a
file states is ever derived (12B: 32 heads x 128 is 4096, not its dim of 5120). A feature that the
engine does not compute is refused here, by key and value, rather than computed wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shards.errors import ModelConfigError

Layout = Literal["mistral", "hf"]

# params.json of neither Pixtral states a limit; mistral-inference precomputes this many positions.
MISTRAL_POSITIONS = 128_000


@dataclass(frozen=True, slots=True)
class TextConfig:
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    rope_theta: float
    norm_eps: float
    max_positions: int


@dataclass(frozen=True, slots=True)
class VisionConfig:
    hidden_size: int
    layers: int
    heads: int
    head_dim: int
    intermediate_size: int
    image_size: int
    patch_size: int
    rope_theta: float
    channels: int = 3

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch (channel, row, column)."""
        return self.channels * self.patch_size * self.patch_size


@dataclass(frozen=True, slots=True)
class ModelConfig:
    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    adapter_bias: bool
    layout: Layout


def read_model_config(folder: Path) -> ModelConfig:
    """The model described in ``folder``; where both layouts are, the one whose weights are there.

    Raises:
        ModelConfigError: no readable description, a key missing or of the wrong type, or a feature
            that is not computed; names file, key and value.
    """
    mistral, hf = folder / "params.json", folder / "config.json"
    if not mistral.is_file() and not hf.is_file():
        raise ModelConfigError(f"{folder} holds neither params.json nor config.json")
    mistral_weights = any(folder.glob("consolidated*.safetensors"))
    hf_weights = any(folder.glob("model*.safetensors"))
    if not hf.is_file() or (mistral.is_file() and (mistral_weights or not hf_weights)):
        config = _read_mistral(_Section.read(mistral))
    else:
        config = _read_hf(_Section.read(hf))
    _check_heads(folder, config)
    return config


def _read_mistral(params: _Section) -> ModelConfig:
    for key in ("moe", "yarn", "llama_4_scaling", "quantization", "lora", "sliding_window"):
        params.require(key, None)
    params.require("model_type", "transformer", absent="transformer")
    params.require("tied_embeddings", False, absent=False)
    vision = params.section("vision_encoder")
    vision.require("spatial_merge_size", 1, absent=1)
    vision.require("add_pre_mm_projector_layer_norm", False, absent=False)
    vision.require("mm_projector_id", "", absent="")
    hidden_size, heads = vision.integer("hidden_size"), vision.integer("num_attention_heads")
    return ModelConfig(
        text=TextConfig(
            dim=params.integer("dim"),
            layers=params.integer("n_layers"),
            heads=params.integer("n_heads"),
            kv_heads=params.integer("n_kv_heads"),
            head_dim=params.integer("head_dim"),
            hidden_dim=params.integer("hidden_dim"),
            vocab_size=params.integer("vocab_size"),
            rope_theta=params.number("rope_theta"),
            norm_eps=params.number("norm_eps"),
            max_positions=params.integer(
                "max_position_embeddings", absent=params.integer("max_seq_len", MISTRAL_POSITIONS)
            ),
        ),
        vision=VisionConfig(
            hidden_size=hidden_size,
            layers=vision.integer("num_hidden_layers"),
            heads=heads,
            # Not stated: the reference code defines it so.
            head_dim=vision.integer("head_dim", absent=hidden_size // max(heads, 1)),
            intermediate_size=vision.integer("intermediate_size"),
            image_size=vision.integer("image_size"),
            patch_size=vision.integer("patch_size"),
            rope_theta=vision.number("rope_theta"),
            channels=vision.integer("num_channels", absent=3),
        ),
        image_token_id=vision.integer("image_token_id", least=0),
        adapter_bias=vision.boolean("adapter_bias"),
        layout="mistral",
    )


def _read_hf(root: _Section) -> ModelConfig:
    """``config.json``. transformers has long left out what equals its class's default.

    Those defaults are taken for the vision encoder, and for the counts that the checkpoint's
    shapes prove right or wrong; RoPE, norm and head_dim of the decoder must be stated.
    """
    root.require("model_type", "llava")
    root.require("projector_hidden_act", "gelu", absent="gelu")
    root.require("vision_feature_layer", -1, absent=-2)
    root.require("vision_feature_select_strategy", "full", absent="default")
    root.require("tie_word_embeddings", False, absent=False)
    root.require("spatial_merge_size", 1, absent=1)
    root.require("quantization_config", None)
    text, vision = root.section("text_config"), root.section("vision_config")
    text.require("model_type", "mistral")
    text.require("hidden_act", "silu", absent="silu")
    text.require("tie_word_embeddings", False, absent=False)
    text.require("sliding_window", None, absent=4096)
    vision.require("model_type", "pixtral")
    vision.require("hidden_act", "silu", absent="gelu")
    hidden_size = vision.integer("hidden_size", absent=1024)
    heads = vision.integer("num_attention_heads", absent=16)
    return ModelConfig(
        text=TextConfig(
            dim=text.integer("hidden_size"),
            layers=text.integer("num_hidden_layers"),
            heads=text.integer("num_attention_heads", absent=32),
            kv_heads=text.integer("num_key_value_heads", absent=8),
            head_dim=text.integer("head_dim"),
            hidden_dim=text.integer("intermediate_size", absent=14336),
            vocab_size=text.integer("vocab_size"),
            rope_theta=_hf_rope_theta(text, ("default",)),
            norm_eps=text.number("rms_norm_eps"),
            max_positions=text.integer("max_position_embeddings"),
        ),
        vision=VisionConfig(
            hidden_size=hidden_size,
            layers=vision.integer("num_hidden_layers", absent=24),
            heads=heads,
            head_dim=vision.integer("head_dim", absent=hidden_size // max(heads, 1)),
            intermediate_size=vision.integer("intermediate_size", absent=4096),
            image_size=vision.integer("image_size", absent=1024),
            patch_size=vision.integer("patch_size", absent=16),
            rope_theta=_hf_rope_theta(vision, ("default", "axial"), absent=1e4),
            channels=vision.integer("num_channels", absent=3),
        ),
        image_token_id=root.integer(
            "image_token_id" if "image_token_id" in root.values else "image_token_index", least=0
        ),
        adapter_bias=root.boolean("multimodal_projector_bias", absent=True),
        layout="hf",
    )


def _hf_rope_theta(section: _Section, types: tuple[str, ...], absent: float | None = None) -> float:
    """``rope_theta`` itself (transformers 4) or within ``rope_parameters`` (transformers 5)."""
    section.require("rope_scaling", None)
    if section.values.get("rope_parameters") is None:
        return section.number("rope_theta", absent)
    rope = section.section("rope_parameters")
    if rope.values.get("rope_type", "default") not in types:
        raise rope.error("rope_type", f"must be {' or '.join(types)}")
    return rope.number("rope_theta")


def _check_heads(folder: Path, config: ModelConfig) -> None:
    text, vision = config.text, config.vision
    if text.heads % text.kv_heads:
        raise ModelConfigError(
            f"{folder}: {text.heads} heads cannot share {text.kv_heads} kv heads evenly"
        )
    if text.head_dim % 2:
        raise ModelConfigError(f"{folder}: head_dim {text.head_dim} must be even to be rotated")
    if vision.head_dim % 4:
        raise ModelConfigError(
            f"{folder}: vision head_dim {vision.head_dim} must divide by 4 to be rotated by row"
            " and column"
        )
    if config.image_token_id >= text.vocab_size:
        raise ModelConfigError(
            f"{folder}: image token id {config.image_token_id} is outside the vocabulary of"
            f" {text.vocab_size}"
        )


@dataclass(frozen=True, slots=True)
class _Section:
    """One JSON object of a config file, that knows its place for error messages."""

    file: Path
    path: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> _Section:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelConfigError(f"{file} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise ModelConfigError(f"{file} must hold a JSON object, not a {type(values).__name__}")
        return cls(file, "", values)

    def error(self, key: str, message: str) -> ModelConfigError:
        stated = f"is {json.dumps(self.values[key])}" if key in self.values else "is missing"
        return ModelConfigError(f"{self.file}: {self.path}{key} {stated}; it {message}")

    def section(self, key: str) -> _Section:
        if not isinstance(self.values.get(key), dict):
            raise self.error(key, "must be an object")
        return _Section(self.file, f"{self.path}{key}.", self.values[key])

    def integer(self, key: str, absent: int | None = None, least: int = 1) -> int:
        value = self.values.get(key, absent)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.error(key, f"must be an integer of at least {least}")
        return value

    def number(self, key: str, absent: float | None = None) -> float:
        value = self.values.get(key, absent)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise self.error(key, "must be a number above 0")
        return float(value)

    def boolean(self, key: str, absent: bool | None = None) -> bool:
        value = self.values.get(key, absent)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def require(self, key: str, computed: object, absent: object = None) -> None:
        """Refuse any value but ``computed``; a missing key means ``absent``."""
        if self.values.get(key, absent) != computed:
            raise self.error(key, f"must be {json.dumps(computed)}: nothing else is computed")
