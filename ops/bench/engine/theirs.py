"""The same weights under transformers: ``generate``, its static batch, its continuous batching."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ops.bench.engine.model import Model
from ops.bench.engine.prompts import Prompt
from ops.bench.engine.run import Run
from shards.config import ModelConfig

# Tokens of its cache that are handed out together.
_PAGE = 32
# Our tensors' names → the modules of LlavaForConditionalGeneration, in memory.
_NAMES = (
    ("vision_encoder.", "model.vision_tower."),
    ("vision_language_adapter.w_in", "model.multi_modal_projector.linear_1"),
    ("vision_language_adapter.w_out", "model.multi_modal_projector.linear_2"),
    ("tok_embeddings", "model.language_model.embed_tokens"),
    ("output", "lm_head"),
    ("norm", "model.language_model.norm"),
    ("layers.", "model.language_model.layers."),
)
_BLOCKS = {
    "wq": "q_proj",
    "wk": "k_proj",
    "wv": "v_proj",
    "wo": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
}
_TEXT_BLOCKS = {
    "attention.": "self_attn.",
    "feed_forward.": "mlp.",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


class Theirs:
    """A Llava of transformers that holds a checkpoint of ours in float32."""

    def __init__(self, model: Model, bans: frozenset[int], attention: str = "sdpa") -> None:
        """
        Args:
            bans: ids that it may never draw, as in the engine.
            attention: which of its implementations computes it.
        """
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import LlavaForConditionalGeneration
        from transformers.utils.logging import disable_progress_bar

        self.model = model
        disable_progress_bar()
        config = llava_config(model.config, attention)
        self.llava, loading = LlavaForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=dict(their_weights(model)), output_loading_info=True
        )
        wrong = {kind: keys for kind, keys in loading.items() if keys}
        if wrong:
            raise ValueError(f"these weights are not those that transformers expects: {wrong}")
        self.llava.eval()
        self._bans = _Bans(bans, model.config.text.vocab_size)

    @torch.inference_mode()
    def run(self, prompts: Sequence[Prompt], new_tokens: int, banned: bool = True) -> Run:
        """One static batch of equally long prompts, greedily, with exactly so many tokens each.

        Args:
            banned: False lets it draw every id.
        """
        watch = _Watch(len(prompts))
        output = self.llava.generate(
            **_inputs(prompts),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=11,
            logits_processor=[self._bans, watch] if banned else [watch],
        )
        watch.end()
        answers = output[:, len(prompts[0].token_ids) :].tolist()
        return Run(tuple(map(tuple, answers)), watch.moments, watch.moments[0][0])

    def back_to_back(self, prompts: Sequence[Prompt], new_tokens: int) -> Run:
        """One after the other, as one run that began with the first."""
        moments: list[tuple[float, int]] = []
        tokens: list[tuple[int, ...]] = []
        before = 0.0
        for prompt in prompts:
            run = self.run([prompt], new_tokens)
            moments += [(before + at, drawn) for at, drawn in run.moments]
            tokens += run.tokens
            begun_s = before + run.begun_s
            before += run.total_s
        return Run(tuple(tokens), tuple(moments), begun_s)

    @torch.inference_mode()
    def continuous(self, prompts: Sequence[Prompt], new_tokens: int) -> Run:
        """By its continuous batching: text only, and without bans, which it does not know.

        Raises:
            Exception: of any kind; it is made for CUDA.
        """
        from transformers import ContinuousBatchingConfig, GenerationConfig

        longest = len(prompts[0].token_ids) + new_tokens
        outputs = self.llava.generate_batch(
            inputs=[list(prompt.token_ids) for prompt in prompts],
            generation_config=GenerationConfig(
                max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=11
            ),
            # Left to itself it takes most of the machine's memory for its cache.
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=_PAGE,
                num_blocks=2 * len(prompts) * (longest // _PAGE + 1),
                max_batch_tokens=len(prompts) * longest,
            ),
            record_timestamps=True,
            warmup=False,
        )
        answers = list(outputs.values())
        if sorted(len(each.generated_tokens) for each in answers) != [new_tokens] * len(prompts):
            raise RuntimeError(f"{len(answers)} answers to {len(prompts)} requests, or cut short")
        # From the first request made to the last token: what its manager takes to start is not
        # counted, as it is not of the other ways.
        started = min(each.created_time for each in answers)
        times = Counter(at - started for each in answers for at in each.timestamps)
        return Run(
            tuple(tuple(each.generated_tokens) for each in answers),
            tuple(sorted(times.items())),
            max(each.timestamps[0] for each in answers) - started,
        )


def llava_config(config: ModelConfig, attention: str = "sdpa") -> Any:
    """transformers' description of the same model; several of its defaults are not Pixtral's."""
    from transformers import LlavaConfig, MistralConfig, PixtralVisionConfig

    text, vision = config.text, config.vision
    return LlavaConfig(
        vision_config=PixtralVisionConfig(
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.heads,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            hidden_act="silu",
            rope_parameters={"rope_type": "axial", "rope_theta": vision.rope_theta},
        ),
        text_config=MistralConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.dim,
            intermediate_size=text.hidden_dim,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            num_key_value_heads=text.kv_heads,
            head_dim=text.head_dim,
            max_position_embeddings=text.max_positions,
            rms_norm_eps=text.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": text.rope_theta},
            sliding_window=None,
            tie_word_embeddings=False,
        ),
        image_token_index=config.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        multimodal_projector_bias=config.adapter_bias,
        tie_word_embeddings=False,
        attn_implementation=attention,
    )


class _Bans:
    """A logits processor: adds -inf where an id may not be drawn (one addition a step)."""

    def __init__(self, ids: frozenset[int], vocabulary: int) -> None:
        self._mask = torch.zeros(vocabulary)
        self._mask[sorted(ids)] = -torch.inf

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        return scores + self._mask


class _Watch:
    """A logits processor that notes when each step's logits were there."""

    def __init__(self, sequences: int) -> None:
        self._sequences = sequences
        self._started = time.perf_counter()
        self._times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        self._times.append(time.perf_counter() - self._started)
        return scores

    def end(self) -> None:
        """The last token is there when ``generate`` returns."""
        self._times[-1] = time.perf_counter() - self._started

    @property
    def moments(self) -> tuple[tuple[float, int], ...]:
        return tuple((at, self._sequences) for at in self._times)


def _inputs(prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    ids = torch.tensor([prompt.token_ids for prompt in prompts])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    pictures = [torch.from_numpy(prompt.pixels) for prompt in prompts if prompt.pixels is not None]
    if pictures:
        inputs["pixel_values"] = torch.stack(pictures)
        inputs["image_sizes"] = torch.tensor([list(picture.shape[1:]) for picture in pictures])
    return inputs


def their_weights(model: Model) -> Iterator[tuple[str, Tensor]]:
    """A checkpoint's tensors in float32, by the names that they have in transformers' memory."""
    text, vision = model.config.text, model.config.vision
    with safe_open(model.folder / "consolidated.safetensors", framework="pt") as file:
        names = file.keys()
        for name in names:
            tensor = file.get_tensor(name).float()
            head_dim = vision.head_dim if name.startswith("vision") else text.head_dim
            if name.endswith((".wq.weight", ".wk.weight")):
                tensor = _halves_from_pairs(tensor, head_dim)
            yield _their_name(name), tensor


def _their_name(name: str) -> str:
    ours, theirs = next(pair for pair in _NAMES if name.startswith(pair[0]))
    name = theirs + name.removeprefix(ours)
    parts = [_BLOCKS.get(part, part) for part in name.split(".")]
    name = ".".join(parts)
    if name.startswith("model.language_model.layers."):
        for old, new in _TEXT_BLOCKS.items():
            name = name.replace(f".{old}", f".{new}")
    return name


def _halves_from_pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Mistral rotates neighbouring rows of a head, transformers rows half a head apart."""
    heads = rows.view(-1, head_dim // 2, 2, rows.shape[1])
    return heads.transpose(1, 2).reshape(rows.shape)
