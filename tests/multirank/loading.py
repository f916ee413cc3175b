"""A checkpoint of over 1 GB, and what loading it costs one rank. No transformers in here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from shards.comm import Communicator, SingleRank
from shards.config import Layout, ModelConfig, TextConfig, VisionConfig
from shards.layers import Part, Placement, model_parts
from shards.names import disk_name
from shards.runner import ModelRunner
from shards.text_model import Decoder
from shards.vision_model import VisionEncoder

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LoadingCost:
    """Bytes."""

    peak_memory: int
    process_read: int
    reader_read: int


def measure_loading(comm: Communicator, folders: dict[str, Path]) -> dict[str, LoadingCost]:
    """Load this rank's share of each checkpoint, one after the other."""
    return {name: _measure(comm, folder) for name, folder in folders.items()}


def _measure(comm: Communicator, folder: Path) -> LoadingCost:
    """Load in float32; memory above what the process had before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    memory, read = _proc("status", "VmRSS") * 1024, _proc("io", "rchar")
    runner = ModelRunner.load(
        folder, comm, device=CPU, dtype="float32", block_size=16, kv_cache_bytes=2**20
    )
    return LoadingCost(
        peak_memory=_proc("status", "VmHWM") * 1024 - memory,
        process_read=_proc("io", "rchar") - read,
        reader_read=runner.weight_bytes_read,
    )


def _proc(file: str, field: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[field].split()[0])


def big_config(layout: Layout) -> ModelConfig:
    """284 million decoder parameters in few tensors, and a small encoder beside them."""
    return ModelConfig(
        text=TextConfig(2048, 4, 16, 4, 128, 8192, 8192, 1e9, 1e-5, 4096),
        vision=VisionConfig(1408, 1, 16, 88, 1024, 1024, 16, 1e4),
        image_token_id=10,
        adapter_bias=True,
        layout=layout,
    )


def write_checkpoint(folder: Path, config: ModelConfig, dtype: torch.dtype) -> Path:
    """One file of repeated random bytes; every tensor of the model has its name and its size."""
    folder.mkdir()
    place = Placement(SingleRank(), torch.device("meta"), dtype)
    parts = [
        *model_parts(Decoder(config, place)),
        *model_parts(VisionEncoder(config.vision, place), "vision_encoder"),
    ]
    header, end = {}, 0
    for part in parts:
        begin, end = end, end + _bytes(part, dtype)
        header[disk_name(part.name, config.layout)] = {
            "dtype": {torch.float32: "F32", torch.bfloat16: "BF16"}[dtype],
            "shape": part.shape,
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header).encode()
    chunk = torch.randn(2**22).to(dtype).view(torch.uint8).numpy().data
    stem = "consolidated" if config.layout == "mistral" else "model"
    with (folder / f"{stem}.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for begin in range(0, end, len(chunk)):
            file.write(chunk[: end - begin])
    _write_description(folder, config)
    return folder


def _bytes(part: Part, dtype: torch.dtype) -> int:
    return part.target.numel() * dtype.itemsize


def _write_description(folder: Path, config: ModelConfig) -> None:
    text, vision = config.text, config.vision
    encoder = {
        "hidden_size": vision.hidden_size,
        "num_hidden_layers": vision.layers,
        "num_attention_heads": vision.heads,
        "intermediate_size": vision.intermediate_size,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "rope_theta": vision.rope_theta,
    }
    if config.layout == "mistral":
        params = {
            "dim": text.dim,
            "n_layers": text.layers,
            "n_heads": text.heads,
            "n_kv_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "hidden_dim": text.hidden_dim,
            "vocab_size": text.vocab_size,
            "rope_theta": text.rope_theta,
            "norm_eps": text.norm_eps,
            "vision_encoder": encoder | {"image_token_id": 10, "adapter_bias": True},
        }
        (folder / "params.json").write_text(json.dumps(params))
        return
    described = {
        "model_type": "llava",
        "image_token_index": 10,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "vision_config": encoder | {"model_type": "pixtral", "hidden_act": "silu"},
        "text_config": {
            "model_type": "mistral",
            "hidden_size": text.dim,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "intermediate_size": text.hidden_dim,
            "vocab_size": text.vocab_size,
            "rope_theta": text.rope_theta,
            "rms_norm_eps": text.norm_eps,
            "max_position_embeddings": text.max_positions,
            "sliding_window": None,
        },
    }
    (folder / "config.json").write_text(json.dumps(described))
