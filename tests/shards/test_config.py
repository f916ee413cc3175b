import json
from pathlib import Path
from typing import Any

import pytest

from shards.config import MISTRAL_POSITIONS, ModelConfig, TextConfig, VisionConfig
from shards.config import read_model_config as read
from shards.errors import ModelConfigError

LARGE_PARAMS: dict[str, Any] = {
    "dim": 12288,
    "n_layers": 88,
    "head_dim": 128,
    "hidden_dim": 28672,
    "n_heads": 96,
    "n_kv_heads": 8,
    "rope_theta": 1000000000.0,
    "norm_eps": 1e-05,
    "vocab_size": 32768,
    "vision_encoder": {
        "hidden_size": 1408,
        "num_channels": 3,
        "image_size": 1024,
        "patch_size": 16,
        "rope_theta": 10000.0,
        "intermediate_size": 6144,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "image_token_id": 10,
        "image_break_token_id": 14,
        "image_end_token_id": 15,
        "adapter_bias": False,
    },
}
LARGE = ModelConfig(
    text=TextConfig(12288, 88, 96, 8, 128, 28672, 32768, 1e9, 1e-5, MISTRAL_POSITIONS),
    vision=VisionConfig(1408, 40, 16, 88, 6144, 1024, 16, 1e4),
    image_token_id=10,
    adapter_bias=False,
    layout="mistral",
)

# As transformers 4 wrote it: what equals a class's default is left out.
HF_12B: dict[str, Any] = {
    "model_type": "llava",
    "image_token_index": 10,
    "projector_hidden_act": "gelu",
    "text_config": {
        "head_dim": 128,
        "hidden_size": 5120,
        "intermediate_size": 14336,
        "max_position_embeddings": 1024000,
        "model_type": "mistral",
        "num_hidden_layers": 40,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000000.0,
        "sliding_window": None,
        "vocab_size": 131072,
    },
    "vision_config": {
        "head_dim": 64,
        "hidden_act": "silu",
        "image_size": 1024,
        "model_type": "pixtral",
        "patch_size": 16,
        "rope_theta": 10000.0,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
TWELVE_B = ModelConfig(
    text=TextConfig(5120, 40, 32, 8, 128, 14336, 131072, 1e9, 1e-5, 1024000),
    vision=VisionConfig(1024, 24, 16, 64, 4096, 1024, 16, 1e4),
    image_token_id=10,
    adapter_bias=True,
    layout="hf",
)
REMOVE = object()


def write(folder: Path, name: str, source: dict[str, Any], changes: dict[str, Any]) -> Path:
    """``source`` with dotted keys changed or removed, as ``folder/name``."""
    values = json.loads(json.dumps(source))
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        section = values
        for name_of_section in sections:
            section = section[name_of_section]
        if value is REMOVE:
            del section[key]
        else:
            section[key] = value
    (folder / name).write_text(json.dumps(values))
    return folder


def test_mistral_params(tmp_path):
    assert read(write(tmp_path, "params.json", LARGE_PARAMS, {})) == LARGE


def test_huggingface_config_written_by_transformers_4(tmp_path):
    assert read(write(tmp_path, "config.json", HF_12B, {})) == TWELVE_B


def test_huggingface_config_written_by_transformers_5(tmp_path):
    changes = {
        "text_config.rope_theta": REMOVE,
        "text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e9},
        "vision_config.rope_theta": REMOVE,
        "vision_config.rope_parameters": {"rope_type": "axial", "rope_theta": 1e4},
        "image_token_index": REMOVE,
        "image_token_id": 10,
        "text_config.hidden_act": "silu",
    }
    assert read(write(tmp_path, "config.json", HF_12B, changes)) == TWELVE_B


def test_a_stated_vision_head_dim_is_taken(tmp_path):
    changes = {"vision_encoder.head_dim": 96}
    assert read(write(tmp_path, "params.json", LARGE_PARAMS, changes)).vision.head_dim == 96


def test_a_stated_context_limit_is_taken(tmp_path):
    changes = {"max_seq_len": 32768}
    assert read(write(tmp_path, "params.json", LARGE_PARAMS, changes)).text.max_positions == 32768


@pytest.mark.parametrize(
    ("weights", "layout"),
    [
        (["consolidated.safetensors"], "mistral"),
        (["model-00001-of-00002.safetensors"], "hf"),
        (["consolidated-00001-of-00002.safetensors", "model.safetensors"], "mistral"),
        ([], "mistral"),
    ],
)
def test_of_two_layouts_the_one_with_weights_is_read(tmp_path, weights, layout):
    write(tmp_path, "params.json", LARGE_PARAMS, {})
    write(tmp_path, "config.json", HF_12B, {})
    for name in weights:
        (tmp_path / name).touch()
    assert read(tmp_path).layout == layout


REFUSED_PARAMS = {
    "tied_embeddings": True,
    "sliding_window": 4096,
    "moe": {"num_experts": 8},
    "yarn": {"factor": 2},
    "quantization": {"qformat_weight": "fp8_e4m3"},
    "model_type": "mamba",
    "head_dim": REMOVE,
    "n_kv_heads": "8",
    "rope_theta": REMOVE,
    "norm_eps": 0,
    "n_layers": True,
    "vision_encoder": REMOVE,
    "vision_encoder.image_token_id": REMOVE,
    "vision_encoder.adapter_bias": REMOVE,
    "vision_encoder.spatial_merge_size": 2,
    "vision_encoder.add_pre_mm_projector_layer_norm": True,
    "vision_encoder.mm_projector_id": "patch_merge",
}


@pytest.mark.parametrize(("key", "value"), REFUSED_PARAMS.items(), ids=REFUSED_PARAMS)
def test_params_that_are_not_computed_are_refused_by_name(tmp_path, key, value):
    write(tmp_path, "params.json", LARGE_PARAMS, {key: value})
    stated = "is missing" if value is REMOVE else f"is {json.dumps(value)}"
    with pytest.raises(ModelConfigError, match=r"params\.json") as error:
        read(tmp_path)
    assert f"{key} {stated}" in str(error.value)


REFUSED_HF = {
    "model_type": "mistral3",
    "tie_word_embeddings": True,
    "spatial_merge_size": 2,
    "projector_hidden_act": "relu",
    "vision_feature_layer": REMOVE,
    "vision_feature_select_strategy": "default",
    "quantization_config": {"quant_method": "gptq"},
    "image_token_index": REMOVE,
    "text_config.model_type": "llama",
    "text_config.head_dim": REMOVE,
    "text_config.sliding_window": REMOVE,
    "text_config.rope_theta": REMOVE,
    "text_config.rope_scaling": {"type": "linear"},
    "text_config.rms_norm_eps": REMOVE,
    "text_config.tie_word_embeddings": True,
    "text_config.hidden_act": "gelu",
    "vision_config.hidden_act": REMOVE,
    "vision_config.model_type": "clip_vision_model",
}


@pytest.mark.parametrize(("key", "value"), REFUSED_HF.items(), ids=REFUSED_HF)
def test_hf_configs_that_are_not_computed_are_refused_by_name(tmp_path, key, value):
    write(tmp_path, "config.json", HF_12B, {key: value})
    stated = "is missing" if value is REMOVE else f"is {json.dumps(value)}"
    with pytest.raises(ModelConfigError, match=r"config\.json") as error:
        read(tmp_path)
    assert f"{key} {stated}" in str(error.value)


def test_scaled_rope_is_refused(tmp_path):
    rope = {"rope_type": "yarn", "rope_theta": 1e9, "factor": 4.0}
    write(tmp_path, "config.json", HF_12B, {"text_config.rope_parameters": rope})
    with pytest.raises(ModelConfigError, match=r"text_config\.rope_parameters\.rope_type"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 97}, "97 heads cannot share 8"),
        ({"head_dim": 127}, "head_dim 127 must be even"),
        ({"vision_encoder.head_dim": 90}, "vision head_dim 90 must divide by 4"),
        ({"vision_encoder.image_token_id": 32768}, "32768 is outside the vocabulary of 32768"),
    ],
)
def test_numbers_that_cannot_go_together_are_refused(tmp_path, changes, message):
    write(tmp_path, "params.json", LARGE_PARAMS, changes)
    with pytest.raises(ModelConfigError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_an_unreadable_file_is_named(tmp_path, text):
    (tmp_path / "params.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelConfigError, match=r"params\.json"):
        read(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelConfigError, match=r"neither params\.json nor config\.json"):
        read(tmp_path)
