"""The bundled model: whole, written once, and what it is said to be; and random ones beside it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors import safe_open

from ops import nano
from ops.nano.checkpoint import parameters
from shards.comm import SingleRank
from shards.config import ModelConfig, read_model_config
from shards.conversation import Conversation, Image, Message, Text
from shards.errors import CheckpointError
from shards.pixels import patches
from shards.runner import ModelRunner
from shards.step import Advance, Begin, Draws, PictureKey, PictureSpan, StepPlan
from shards.tokenizer import Tokenizer, find_tokenizer
from shards.vision_model import VisionEncoder

CPU = torch.device("cpu")
WEIGHTS = "consolidated.safetensors"
SMALL_TEXT = dataclasses.replace(nano.NANO.text, dim=48, layers=1, hidden_dim=32, vocab_size=512)
SMALL = dataclasses.replace(nano.NANO, text=SMALL_TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("models") / "nano")


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """A random one."""
    folder: Path = tmp_path_factory.mktemp("noise")
    nano.write_checkpoint(folder)
    return folder


def tensors(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def test_it_has_the_shape_of_pixtral_large(folder):
    config = read_model_config(folder)
    assert config == nano.TRAINED
    assert (folder / WEIGHTS).stat().st_size < 40e6
    assert (config.text.vocab_size, config.image_token_id, config.adapter_bias) == (
        32768,
        10,
        False,
    )
    assert config.text.heads == 2 * config.text.kv_heads
    assert all(
        config.text.heads % ranks == config.text.kv_heads % ranks == 0 for ranks in (1, 2, 4)
    )
    vision = json.loads((folder / "params.json").read_text())["vision_encoder"]
    assert (vision["image_break_token_id"], vision["image_end_token_id"]) == (14, 15)


def test_its_tokenizer_is_larges(folder):
    vocabulary = Tokenizer.from_folder(folder).vocabulary
    assert (vocabulary.image_id, vocabulary.image_break_id, vocabulary.image_end_id) == (10, 14, 15)
    assert len(vocabulary) == 32768


def test_its_file_holds_what_a_safetensors_reader_expects(folder):
    stored = tensors(folder / WEIGHTS)
    assert sum(tensor.numel() for tensor in stored.values()) == parameters(nano.TRAINED)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert stored["layers.3.attention.wk.weight"].shape == (128, 192)
    assert stored["vision_encoder.patch_conv.weight"].shape == (192, 3, 16, 16)
    assert stored["vision_language_adapter.w_in.weight"].shape == (192, 192)
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())


def test_random_weights_keep_the_size_of_what_passes_through_them(noise):
    stored = tensors(noise / WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    for name, weight in stored.items():
        assert torch.isfinite(weight).all()
        if weight.dim() == 1:
            assert 0.9 < weight.float().mean() < 1.1, name
        elif name not in ("tok_embeddings.weight", "output.weight"):
            matrix = weight.float().flatten(1)
            passed = matrix @ torch.randn(matrix.shape[1], 8, generator=generator)
            assert 0.8 < passed.std() < 1.2, name
    assert 0.9 < stored["tok_embeddings.weight"].float().std() < 1.1
    logits = stored["output.weight"].float() @ torch.randn(256, generator=generator)
    assert 2 < logits.std() < 4
    assert 0.01 < torch.softmax(logits, 0).max() < 0.9


def test_random_tensors_differ_although_their_shapes_do_not(noise):
    stored = tensors(noise / WEIGHTS)
    layers = [stored[f"layers.{layer}.attention.wq.weight"].float() for layer in range(4)]
    for one, other in pairwise(layers):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < 0.05


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    written = []
    for number, seed in enumerate((1, 1, 2)):
        nano.write_checkpoint(tmp_path / str(number), SMALL, seed=seed)
        written.append((tmp_path / str(number) / WEIGHTS).read_bytes())
    assert written[0] == written[1] != written[2]


def test_bfloat16_is_float32_rounded(tmp_path):
    nano.write_checkpoint(tmp_path / "half", SMALL)
    nano.write_checkpoint(tmp_path / "whole", SMALL, dtype="float32")
    half, whole = tensors(tmp_path / "half" / WEIGHTS), tensors(tmp_path / "whole" / WEIGHTS)
    assert half.keys() == whole.keys()
    for name, tensor in whole.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.to(torch.bfloat16), half[name])


def test_a_12b_like_checkpoint_has_its_tokenizer_ids_and_biases(tmp_path):
    text = dataclasses.replace(SMALL_TEXT, dim=40)
    model: ModelConfig = dataclasses.replace(nano.NANO, text=text, adapter_bias=True)
    nano.write_checkpoint(tmp_path, model, family="12b")
    assert read_model_config(tmp_path) == model
    assert find_tokenizer(tmp_path).name == "tekken.json"
    vision = json.loads((tmp_path / "params.json").read_text())["vision_encoder"]
    assert (vision["image_break_token_id"], vision["image_end_token_id"]) == (12, 13)
    biases = {name: t.shape for name, t in tensors(tmp_path / WEIGHTS).items() if "bias" in name}
    assert biases == {
        "vision_language_adapter.w_in.bias": (40,),
        "vision_language_adapter.w_out.bias": (40,),
    }


def test_it_is_written_once(folder):
    before = (folder / WEIGHTS).stat()
    assert nano.ensure(folder) == folder
    assert (folder / WEIGHTS).stat() == before


def test_a_damaged_one_is_written_again(folder):
    original = (folder / WEIGHTS).read_bytes()
    damaged = bytearray(original)
    damaged[len(damaged) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(damaged)
    nano.ensure(folder)
    assert (folder / WEIGHTS).read_bytes() == original


def test_one_that_misses_a_file_is_written_again(folder):
    original = (folder / "params.json").read_text()
    (folder / "params.json").unlink()
    nano.ensure(folder)
    assert (folder / "params.json").read_text() == original


def test_one_of_another_recipe_is_replaced(folder):
    manifest = json.loads((folder / nano.MANIFEST).read_text())
    stale = manifest | {"recipe": manifest["recipe"] | {"seed": 1}}
    (folder / nano.MANIFEST).write_text(json.dumps(stale))
    nano.ensure(folder)
    assert json.loads((folder / nano.MANIFEST).read_text()) == manifest


def test_its_card_says_what_it_is_how_good_and_how_it_was_made(folder):
    card = (folder / nano.CARD).read_text()
    for told in ("# pixtral-nano", "## Accuracy", "## Training", "## Licence"):
        assert told in card


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        nano.ensure(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_several_processes_may_ask_at_once_and_nothing_is_left_over(tmp_path):
    ask = [sys.executable, "-m", "ops.nano", str(tmp_path / "models" / "nano")]
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda _: subprocess.run(ask, capture_output=True, text=True), range(2))
        )
    assert [(run.returncode, run.stdout.strip()) for run in runs] == [(0, ask[-1])] * 2
    names = sorted(file.name for file in (tmp_path / "models").iterdir())
    assert names == [".nano.lock", "nano"]


def test_values_follow_from_seed_and_name_alone(tmp_path):
    """A deeper model has the same first layers: a stream per tensor, not one for all."""
    deeper = dataclasses.replace(SMALL, text=dataclasses.replace(SMALL_TEXT, layers=2))
    nano.write_checkpoint(tmp_path / "one", SMALL, dtype="float32")
    nano.write_checkpoint(tmp_path / "two", deeper, dtype="float32")
    one, two = tensors(tmp_path / "one" / WEIGHTS), tensors(tmp_path / "two" / WEIGHTS)
    assert one.keys() < two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_random_one_computes_and_what_it_says_depends_on_what_it_sees(noise):
    """Through the engine's own loaders, which account for every tensor of the file."""
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_folder(noise)
    encoder = VisionEncoder.load(noise, device=CPU, dtype="float32")
    runner = ModelRunner.load(
        noise, SingleRank(), device=CPU, dtype="float32", block_size=16, kv_cache_bytes=2**22
    )

    def logits(question: str, colour: str) -> torch.Tensor:
        asked = Conversation((Message("user", (Image(0), Text(question))),))
        prompt = tokenizer.encode(asked, [(48, 32)])
        grid, values = patches(Pillow.new("RGB", (48, 32), colour))
        key = PictureKey(question, 0)
        runner.add_picture(key, encoder.encode(values, [grid]).numpy())
        row, count = len(runner.batch), len(prompt.token_ids)
        begin = Begin(
            row,
            prompt.token_ids,
            computed=0,
            block_table=tuple(range(-(-count // 16))),
            draws=Draws(seed=0, choice=0, temperature=0),
            pictures=(PictureSpan(key, grid.patches),),
        )
        works = runner.batch.apply(StepPlan(begun=(begin,), advances=(Advance(row, count),)))
        return runner.forward(works)[0]

    red, blue, other = logits("What?", "red"), logits("What?", "blue"), logits("Why?", "blue")
    for one in (red, blue, other):
        assert 2 < one.std() < 4
        assert 0.01 < torch.softmax(one, 0).max() < 0.95
    assert torch.corrcoef(torch.stack((red, blue)))[0, 1] < 0.99
    assert torch.corrcoef(torch.stack((blue, other)))[0, 1] < 0.999
