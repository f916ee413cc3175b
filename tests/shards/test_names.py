import pytest

from shards.names import disk_name, normal_name

# Ours (Mistral's), and transformers' on disk; facts/model.md section 3.
NAMES = [
    ("tok_embeddings.weight", "language_model.model.embed_tokens.weight"),
    ("norm.weight", "language_model.model.norm.weight"),
    ("output.weight", "language_model.lm_head.weight"),
    ("layers.3.attention.wq.weight", "language_model.model.layers.3.self_attn.q_proj.weight"),
    ("layers.3.attention.wo.weight", "language_model.model.layers.3.self_attn.o_proj.weight"),
    ("layers.3.feed_forward.w2.weight", "language_model.model.layers.3.mlp.down_proj.weight"),
    ("layers.3.attention_norm.weight", "language_model.model.layers.3.input_layernorm.weight"),
    ("layers.3.ffn_norm.weight", "language_model.model.layers.3.post_attention_layernorm.weight"),
    ("vision_language_adapter.w_in.bias", "multi_modal_projector.linear_1.bias"),
    ("vision_encoder.patch_conv.weight", "vision_tower.patch_conv.weight"),
    (
        "vision_encoder.transformer.layers.1.attention.wk.weight",
        "vision_tower.transformer.layers.1.attention.k_proj.weight",
    ),
    (
        "vision_encoder.transformer.layers.1.feed_forward.w3.weight",
        "vision_tower.transformer.layers.1.feed_forward.up_proj.weight",
    ),
    (
        "vision_encoder.transformer.layers.1.ffn_norm.weight",
        "vision_tower.transformer.layers.1.ffn_norm.weight",
    ),
]


@pytest.mark.parametrize(("ours", "hf"), NAMES)
def test_names_on_disk(ours, hf):
    assert disk_name(ours, "hf") == hf
    assert disk_name(ours, "mistral") == ours
    assert normal_name(hf, "hf") == hf


@pytest.mark.parametrize(
    ("in_memory", "on_disk"),
    [
        ("lm_head.weight", "language_model.lm_head.weight"),
        ("model.language_model.norm.weight", "language_model.model.norm.weight"),
        ("model.vision_tower.ln_pre.weight", "vision_tower.ln_pre.weight"),
        ("model.multi_modal_projector.linear_2.bias", "multi_modal_projector.linear_2.bias"),
    ],
)
def test_transformers_5_names_in_memory_are_accepted(in_memory, on_disk):
    assert normal_name(in_memory, "hf") == on_disk
