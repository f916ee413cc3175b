"""What checkpoints call their tensors. Mistral's names are ours; Hugging Face's are translated.

layers.3.attention.wq.weight       language_model.model.layers.3.self_attn.q_proj.weight
vision_encoder.ln_pre.weight       vision_tower.ln_pre.weight
"""

from __future__ import annotations

import re

from shards.config import Layout

# First segment -> Hugging Face's, on disk.
_ROOTS = {
    "tok_embeddings": "language_model.model.embed_tokens",
    "layers": "language_model.model.layers",
    "norm": "language_model.model.norm",
    "output": "language_model.lm_head",
    "vision_language_adapter": "multi_modal_projector",
    "vision_encoder": "vision_tower",
}
_MATRICES = {
    "wq": "q_proj",
    "wk": "k_proj",
    "wv": "v_proj",
    "wo": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
    "w_in": "linear_1",
    "w_out": "linear_2",
}
# The vision encoder's blocks keep Mistral's names in both layouts, the decoder's do not.
_DECODER_BLOCKS = {
    "attention": "self_attn",
    "feed_forward": "mlp",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
# transformers 5 keeps the model in memory under these names, and may save it so.
_IN_MEMORY = (
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.(vision_tower|multi_modal_projector)\."), r"\1."),
)


def disk_name(name: str, layout: Layout) -> str:
    """A tensor's name (in Mistral's vocabulary) as ``layout`` spells it."""
    if layout == "mistral":
        return name
    root, *segments = name.split(".")
    vocabulary = _MATRICES | _DECODER_BLOCKS if root == "layers" else _MATRICES
    return ".".join([_ROOTS[root], *(vocabulary.get(segment, segment) for segment in segments)])


def normal_name(name: str, layout: Layout) -> str:
    """A name found in a file, as ``disk_name`` would spell it."""
    if layout == "hf":
        for pattern, replacement in _IN_MEMORY:
            name = pattern.sub(replacement, name)
    return name


def root_prefixes(layout: Layout) -> dict[str, str]:
    """The prefix on disk of each of the model's parts, by its first segment."""
    return {
        root: f"{root if layout == 'mistral' else spelled}." for root, spelled in _ROOTS.items()
    }
