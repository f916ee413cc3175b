"""A model of any shape whose weights copy: after a token it says what followed it before.

Random weights repeat nothing, so they cannot show what guessing from the prompt is worth. These
do what a trained model does with a document it is asked to repeat, by the two heads by which
trained models do it, and compute as much as any other weights of that shape:

    layer 0, every head        looks at the position before and notes its token (previous-token)
    layer 1, every head        looks where the noted token is the present one, and says the token
                               that stands there (induction)
    all other layers           read and multiply as ever, and add nothing

The residual stream holds three codes of ``kv_heads * head_dim`` signs each (the present token, the
noted one, the answer), and a constant by which layer 0 knows positions.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ops.bench.engine.model import Values
from ops.nano.checkpoint import SEED, random_values
from shards.config import ModelConfig, TextConfig

Matrix = NDArray[np.float32]
# The constant's share of the stream; large, so that norms hardly depend on the codes.
_CONSTANT = 32.0
# How far apart the scores of the right and of the next best position are, at least: e^-20 of the
# weight goes astray.
_SHARPNESS = 32.0
_LOGIT = 0.5


def copying(config: ModelConfig) -> Values:
    """Weights for ``config``, tensor by tensor.

    Raises:
        ValueError: it has too few layers or too narrow a stream.
    """
    text = config.text
    if text.layers < 2 or 3 * _code_width(text) >= text.dim:
        raise ValueError("a model that copies needs 2 layers and a stream of over three codes")
    return partial(_tensor, text)


def _tensor(text: TextConfig, name: str, shape: tuple[int, ...]) -> Matrix:
    if name.startswith("vision"):
        return random_values(name, shape, SEED)
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    if name == "tok_embeddings.weight":
        return _embeddings(text)
    if name == "output.weight":
        return _head(text)
    parts = name.split(".")
    if parts[2] == "attention" and parts[1] in ("0", "1"):
        make = _previous_token if parts[1] == "0" else _induction
        return make(text)[parts[3]]
    if parts[3] in ("wo", "w2"):
        return np.zeros(shape, np.float32)
    return random_values(name, shape, SEED)


def _code_width(text: TextConfig) -> int:
    return text.kv_heads * text.head_dim


def _codes(text: TextConfig) -> Matrix:
    """Each token's signs: [vocabulary, code]."""
    signs = np.random.default_rng(SEED).integers(
        0, 2, (text.vocab_size, _code_width(text)), np.int8
    )
    return (2.0 * signs - 1.0).astype(np.float32)


def _embeddings(text: TextConfig) -> Matrix:
    table = np.zeros((text.vocab_size, text.dim), np.float32)
    table[:, : _code_width(text)] = _codes(text)
    table[:, -1] = _CONSTANT
    return table


def _head(text: TextConfig) -> Matrix:
    """Logits are how much of a token's code the answer is."""
    width = _code_width(text)
    table = np.zeros((text.vocab_size, text.dim), np.float32)
    table[:, 2 * width : 3 * width] = _LOGIT * _codes(text)
    return table


def _previous_token(text: TextConfig) -> dict[str, Matrix]:
    """Queries and keys are the constant, the keys turned forward by one position."""
    rms = _stream_rms(text, codes=1)
    turns = text.rope_theta ** (-2 * np.arange(text.head_dim // 2) / text.head_dim)
    # Turned by next to nothing, the slow pairs would tell neighbours no better apart.
    used = turns > 0.01
    score = np.cos(np.arange(-1, 2000)[:, None] * turns[used]).sum(1)
    gap = score[1] - np.delete(score, 1).max()
    size = math.sqrt(_SHARPNESS * math.sqrt(text.head_dim) / gap) * rms / _CONSTANT
    query, key = np.zeros(text.head_dim), np.zeros(text.head_dim)
    query[0::2][used] = size
    key[0::2][used], key[1::2][used] = size * np.cos(turns[used]), size * np.sin(turns[used])
    matrices = _empty(text)
    matrices["wq"][:, -1] = np.tile(query, text.heads)
    matrices["wk"][:, -1] = np.tile(key, text.kv_heads)
    return _carry(text, matrices, rms, _code_width(text))


def _induction(text: TextConfig) -> dict[str, Matrix]:
    """Queries are the present token's signs, keys the noted one's, on pairs that hardly turn."""
    width, rms = _code_width(text), _stream_rms(text, codes=2)
    still = np.arange(text.head_dim // 2, text.head_dim)
    # Two random codes agree on all but a few deviations of their signs.
    gap = len(still) - 4 * math.sqrt(len(still))
    size = math.sqrt(_SHARPNESS * math.sqrt(text.head_dim) / max(gap, 1)) * rms
    matrices = _empty(text)
    for name, heads, first in (("wq", text.heads, 0), ("wk", text.kv_heads, width)):
        for head in range(heads):
            # Each group of heads reads other signs: they err independently.
            group = head * text.kv_heads // heads
            read = first + (group * text.head_dim + still)
            matrices[name][head * text.head_dim + still, read] = size
    return _carry(text, matrices, rms, 2 * width)


def _carry(
    text: TextConfig, matrices: dict[str, Matrix], rms: float, target: int
) -> dict[str, Matrix]:
    """Values are the code of the token at the place looked at; one head of each group adds it at
    ``target``."""
    width, repeats = _code_width(text), text.heads // text.kv_heads
    code = np.arange(width)
    matrices["wv"][code, code] = rms
    heads = (code // text.head_dim) * repeats * text.head_dim + code % text.head_dim
    matrices["wo"][target + code, heads] = 1
    return matrices


def _empty(text: TextConfig) -> dict[str, Matrix]:
    queries, keys = text.heads * text.head_dim, _code_width(text)
    return {
        "wq": np.zeros((queries, text.dim), np.float32),
        "wk": np.zeros((keys, text.dim), np.float32),
        "wv": np.zeros((keys, text.dim), np.float32),
        "wo": np.zeros((text.dim, queries), np.float32),
    }


def _stream_rms(text: TextConfig, codes: int) -> float:
    return math.sqrt((codes * _code_width(text) + _CONSTANT**2) / text.dim)
