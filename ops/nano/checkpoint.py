"""A random checkpoint of any Pixtral shape, in Mistral's layout, with the family's own tokenizer.

Every tensor is drawn from a stream named after it, so that a value depends on seed, name and
shape only. Written tensor by tensor: memory is that of the largest.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.config import ModelConfig, TextConfig, VisionConfig

Dtype = Literal["bfloat16", "float32"]
Family = Literal["large", "12b"]
Shape = tuple[int, ...]

SEED = 2411
WEIGHTS = "consolidated.safetensors"

NANO = ModelConfig(
    text=TextConfig(
        dim=256,
        layers=4,
        heads=8,
        kv_heads=4,
        head_dim=32,
        hidden_dim=768,
        vocab_size=32768,
        rope_theta=1e9,
        norm_eps=1e-5,
        max_positions=128_000,
    ),
    vision=VisionConfig(
        hidden_size=176,
        layers=3,
        heads=2,
        head_dim=88,
        intermediate_size=512,
        image_size=1024,
        patch_size=16,
        rope_theta=1e4,
    ),
    image_token_id=10,
    adapter_bias=False,
    layout="mistral",
)
"""Pixtral Large in small: 22 M parameters; heads divide by 1, 2 and 4 ranks."""

_DTYPES: dict[Dtype, tuple[str, int]] = {"bfloat16": ("BF16", 2), "float32": ("F32", 4)}
# In mistral-common's own package → in the folder; pictures are read into SentencePiece's by name.
_TOKENIZERS: dict[Family, tuple[str, str]] = {
    "large": ("mistral_instruct_tokenizer_241114.model.v7m1", "tokenizer.model.v7m1"),
    "12b": ("tekken_240911.json", "tekken.json"),
}
_BREAK_AND_END: dict[Family, tuple[int, int]] = {"large": (14, 15), "12b": (12, 13)}


def write_checkpoint(
    folder: Path,
    model: ModelConfig = NANO,
    *,
    family: Family = "large",
    dtype: Dtype = "bfloat16",
    seed: int = SEED,
    values: Callable[[str, Shape], NDArray[np.float32]] | None = None,
) -> None:
    """Write params.json, consolidated.safetensors and the tokenizer into ``folder``.

    Args:
        family: whose tokenizer and picture ids to give it; ``model`` must have its vocabulary
            (32,768 or 131,072) to be asked in words.
        values: makes a tensor by its name and shape; random ones of ``seed`` when None.
    """
    write_description(folder, model, family)
    _write_weights(
        folder / WEIGHTS,
        dict(_shapes(model)),
        dtype,
        values or partial(random_values, seed=seed),
    )


def write_description(folder: Path, model: ModelConfig, family: Family = "large") -> None:
    """Write params.json and the tokenizer: all but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    source, name = _TOKENIZERS[family]
    with as_file(files("mistral_common").joinpath("data", source)) as tokenizer:
        shutil.copyfile(tokenizer, folder / name)
    params = json.dumps(_params(model, family), indent=2)
    (folder / "params.json").write_text(params + "\n", encoding="utf-8")


def parameters(model: ModelConfig) -> int:
    """How many numbers the model holds."""
    return sum(math.prod(shape) for _, shape in _shapes(model))


def _params(model: ModelConfig, family: Family) -> dict[str, Any]:
    text, vision = model.text, model.vision
    image_break, image_end = _BREAK_AND_END[family]
    return {
        "dim": text.dim,
        "n_layers": text.layers,
        "n_heads": text.heads,
        "n_kv_heads": text.kv_heads,
        "head_dim": text.head_dim,
        "hidden_dim": text.hidden_dim,
        "vocab_size": text.vocab_size,
        "rope_theta": text.rope_theta,
        "norm_eps": text.norm_eps,
        "max_position_embeddings": text.max_positions,
        "vision_encoder": {
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "head_dim": vision.head_dim,
            "intermediate_size": vision.intermediate_size,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_channels": vision.channels,
            "rope_theta": vision.rope_theta,
            "image_token_id": model.image_token_id,
            "image_break_token_id": image_break,
            "image_end_token_id": image_end,
            "adapter_bias": model.adapter_bias,
        },
    }


def _shapes(model: ModelConfig) -> Iterator[tuple[str, Shape]]:
    text, vision = model.text, model.vision
    yield "tok_embeddings.weight", (text.vocab_size, text.dim)
    for layer in range(text.layers):
        query, keys = text.heads * text.head_dim, text.kv_heads * text.head_dim
        yield from _block(f"layers.{layer}", text.dim, query, keys, text.hidden_dim)
    yield "norm.weight", (text.dim,)
    yield "output.weight", (text.vocab_size, text.dim)

    width, patch = vision.hidden_size, vision.patch_size
    yield "vision_encoder.patch_conv.weight", (width, vision.channels, patch, patch)
    yield "vision_encoder.ln_pre.weight", (width,)
    for layer in range(vision.layers):
        name, heads = f"vision_encoder.transformer.layers.{layer}", vision.heads * vision.head_dim
        yield from _block(name, width, heads, heads, vision.intermediate_size)
    for name, inputs in (("w_in", width), ("w_out", text.dim)):
        yield f"vision_language_adapter.{name}.weight", (text.dim, inputs)
        if model.adapter_bias:
            yield f"vision_language_adapter.{name}.bias", (text.dim,)


def _block(name: str, dim: int, query: int, keys: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.attention_norm.weight", (dim,)
    yield f"{name}.attention.wq.weight", (query, dim)
    yield f"{name}.attention.wk.weight", (keys, dim)
    yield f"{name}.attention.wv.weight", (keys, dim)
    yield f"{name}.attention.wo.weight", (dim, query)
    yield f"{name}.ffn_norm.weight", (dim,)
    yield f"{name}.feed_forward.w1.weight", (hidden, dim)
    yield f"{name}.feed_forward.w2.weight", (dim, hidden)
    yield f"{name}.feed_forward.w3.weight", (hidden, dim)


def _write_weights(
    file: Path,
    shapes: dict[str, Shape],
    dtype: Dtype,
    make: Callable[[str, Shape], NDArray[np.float32]],
) -> None:
    """One safetensors file: length of the header, header, tensors back to back."""
    label, width = _DTYPES[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": label, "shape": shape, "data_offsets": (begin, end)}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            values = make(name, shape)
            stream.write((values if dtype == "float32" else _bfloat16(values)).data)


def random_values(name: str, shape: Shape, seed: int) -> NDArray[np.float32]:
    """Normal numbers of a size that keeps every path of the model visible in its logits.

    Matrices keep their input's size, norms pass it on, and the output makes logits of deviation 3:
    the likeliest of 32,768 tokens stands out, and sampling still varies.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
    values = rng.standard_normal(shape, np.float32)
    if name == "tok_embeddings.weight":
        return values
    if name.endswith("norm.weight") or name == "vision_encoder.ln_pre.weight":
        return 1 + values / np.float32(10)
    if name.endswith(".bias"):
        return values / np.float32(10)
    size = 3 if name == "output.weight" else 1
    return values * np.float32(size / math.sqrt(math.prod(shape[1:])))


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each number's bits, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16)
