"""Slices, dtypes and layouts, and that every tensor of a checkpoint is accounted for."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shards.checkpoint import halves_from_pairs, load_weights
from shards.comm import SingleRank
from shards.config import Layout
from shards.errors import CheckpointError
from shards.layers import (
    ColumnParallel,
    HeadProjections,
    Placement,
    RMSNorm,
    Rows,
    VocabularyEmbedding,
    model_parts,
)
from shards.names import disk_name

CPU = torch.device("cpu")
WIDTH, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 6, 4, 2, 8, 12


class Toy(nn.Module):
    """One of each kind of cut."""

    def __init__(self, rank: int = 0, size: int = 1, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        comm = SingleRank()
        comm.rank, comm.size = rank, size
        place = Placement(comm, CPU, dtype)
        self.tok_embeddings = VocabularyEmbedding("tok_embeddings", VOCABULARY, WIDTH, place)
        layer = nn.Module()
        layer.attention = HeadProjections(WIDTH, HEADS, KV_HEADS, HEAD_DIM, place)
        layer.ffn_norm = RMSNorm("ffn_norm", WIDTH, 1e-5, place)
        self.layers = nn.ModuleList([layer])
        self.output = ColumnParallel([Rows("output", VOCABULARY)], WIDTH, place)

    @property
    def attention(self) -> HeadProjections:
        attention = self.layers[0].attention
        assert isinstance(attention, HeadProjections)
        return attention


def whole_tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        part.name: torch.randn(part.shape, generator=generator).to(dtype)
        for part in model_parts(Toy())
    }


def write(folder: Path, tensors: dict[str, Tensor], layout: Layout = "hf") -> Path:
    named = {disk_name(name, layout): tensor for name, tensor in tensors.items()}
    stem = "model" if layout == "hf" else "consolidated"
    save_file(named, folder / f"{stem}.safetensors")
    return folder


def write_indexed(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """One file per tensor and an index."""
    weight_map = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        name = disk_name(name, "hf")
        weight_map[name] = f"model-{number:05}.safetensors"
        save_file({name: tensor}, folder / weight_map[name])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("size", [1, 2])
def test_each_rank_gets_its_slices(tmp_path, size):
    whole = whole_tensors()
    write(tmp_path, whole)
    read = 0
    for rank in range(size):
        toy = Toy(rank, size)
        read += load_weights(model_parts(toy), tmp_path, "hf")
        for part in model_parts(toy):
            expected = whole[part.name]
            if part.axis is not None:
                expected = expected.chunk(size, dim=part.axis)[rank]
            torch.testing.assert_close(part.target, expected, rtol=0, atol=0)
    replicated = whole["layers.0.ffn_norm.weight"].nbytes * (size - 1)
    assert read == sum(tensor.nbytes for tensor in whole.values()) + replicated


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("computed", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["hf", "mistral"])
def test_dtypes_are_converted_tensor_by_tensor(tmp_path, stored, computed, layout):
    whole = whole_tensors(stored)
    write(tmp_path, whole, layout)
    toy = Toy(dtype=computed)
    load_weights(model_parts(toy), tmp_path, layout)
    wo = toy.attention.wo.weight
    torch.testing.assert_close(wo, whole["layers.0.attention.wo.weight"].to(computed))


def test_mistral_queries_and_keys_are_put_into_halves_and_values_left_alone(tmp_path):
    whole = whole_tensors()
    write(tmp_path, whole, "mistral")
    toy = Toy(rank=1, size=2)
    load_weights(model_parts(toy), tmp_path, "mistral")
    wqkv = toy.attention.wqkv
    q, k, v = wqkv.weight.split(wqkv.heights)
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # of one head's rows

    def second_half(name: str) -> Tensor:
        return whole[f"layers.0.attention.{name}.weight"].chunk(2)[1]

    torch.testing.assert_close(q, second_half("wq").view(2, HEAD_DIM, -1)[:, order].flatten(0, 1))
    torch.testing.assert_close(k, second_half("wk")[order])
    torch.testing.assert_close(v, second_half("wv"))


def test_a_tensor_larger_than_the_staging_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.checkpoint._STAGING_BYTES", 2 * HEAD_DIM * WIDTH * 4)
    whole = whole_tensors()
    write(tmp_path, whole, "mistral")
    toy = Toy()
    load_weights(model_parts(toy), tmp_path, "mistral")
    expected = halves_from_pairs(whole["layers.0.attention.wq.weight"], HEAD_DIM)
    torch.testing.assert_close(toy.attention.wqkv.weight[: HEADS * HEAD_DIM], expected)


def test_in_memory_names_load(tmp_path):
    whole = whole_tensors()
    named = {disk_name(name, "hf"): tensor for name, tensor in whole.items()}
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace(
            "language_model.lm_head", "lm_head"
        ): tensor
        for name, tensor in named.items()
    }
    assert "lm_head.weight" in renamed
    save_file(renamed, tmp_path / "model.safetensors")
    toy = Toy()
    load_weights(model_parts(toy), tmp_path, "hf")
    torch.testing.assert_close(toy.output.weight, nn.Parameter(whole["output.weight"]))


def test_other_tiers_tensors_are_skipped_unread(tmp_path):
    whole = whole_tensors()
    vision = {"vision_encoder.ln_pre.weight": torch.ones(4, dtype=torch.int8)}
    write(tmp_path, whole | vision)
    read = load_weights(model_parts(Toy()), tmp_path, "hf")
    assert read == sum(tensor.nbytes for tensor in whole.values())


@pytest.mark.parametrize("layout", ["hf", "mistral"])
def test_every_fault_is_named_as_the_file_spells_it(tmp_path, layout):
    whole = whole_tensors()
    del whole["output.weight"]
    whole["layers.0.attention.wq.weight"] = torch.zeros(2, 3)
    whole["tok_embeddings.weight"] = torch.zeros(VOCABULARY, WIDTH, dtype=torch.int8)
    whole["layers.7.attention.wq.weight"] = torch.zeros(1)
    named = {disk_name(name, layout): tensor for name, tensor in whole.items()}
    stem = {"hf": "model", "mistral": "consolidated"}[layout]
    save_file(named | {"rotary.inv_freq": torch.zeros(1)}, tmp_path / f"{stem}.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_weights(model_parts(Toy()), tmp_path, layout)
    message = str(error.value)
    wq, table = disk_name("layers.0.attention.wq.weight", layout), "tok_embeddings.weight"
    assert f"1 missing: {disk_name('output.weight', layout)}" in message
    assert "2 unexpected: " in message
    assert "rotary.inv_freq" in message
    assert disk_name("layers.7.attention.wq.weight", layout) in message
    assert f"1 misshapen: {wq} [2, 3] instead of [32, 6]" in message
    assert f"1 not of dtype F32, BF16, F16: {disk_name(table, layout)} I8" in message


def test_a_long_list_is_cut_to_ten_and_a_count(tmp_path):
    extra = {f"extra.{number}": torch.zeros(1) for number in range(13)}
    save_file(
        {disk_name(name, "hf"): tensor for name, tensor in whole_tensors().items()} | extra,
        tmp_path / "model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"13 unexpected: .* and 3 more") as error:
        load_weights(model_parts(Toy()), tmp_path, "hf")
    assert str(error.value).count("extra.") == 10


def test_the_index_is_trusted_over_what_lies_beside_it(tmp_path):
    whole = whole_tensors()
    write_indexed(tmp_path, whole)
    stale = {disk_name("output.weight", "hf"): torch.zeros(1), "stranger": torch.zeros(1)}
    save_file(stale, tmp_path / "model-00001-of-00099.safetensors")
    toy = Toy()
    load_weights(model_parts(toy), tmp_path, "hf")
    torch.testing.assert_close(toy.output.weight, nn.Parameter(whole["output.weight"]))


def test_shards_without_an_index_are_refused_for_hf(tmp_path):
    write(tmp_path, whole_tensors())
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_weights(model_parts(Toy()), tmp_path, "hf")


def test_mistral_shards_need_no_index_but_must_not_repeat_a_tensor(tmp_path):
    write(tmp_path, whole_tensors(), "mistral")
    whole = load_file(tmp_path / "consolidated.safetensors")
    (tmp_path / "consolidated.safetensors").unlink()
    names = sorted(whole)
    for number in range(2):
        shard = {name: whole[name] for name in names[number::2]}
        save_file(shard, tmp_path / f"consolidated-0000{number + 1}-of-00002.safetensors")
    load_weights(model_parts(Toy()), tmp_path, "mistral")
    save_file({names[0]: whole[names[0]]}, tmp_path / "consolidated-9.safetensors")
    with pytest.raises(CheckpointError, match=f"{names[0]} is in both"):
        load_weights(model_parts(Toy()), tmp_path, "mistral")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"output.weight": "../model.safetensors"}, "which is not beside it"),
        ({"stranger": "model-00000.safetensors"}, "1 not in the file it names: stranger"),
        ({"output.weight": "absent.safetensors"}, r"absent\.safetensors cannot be read"),
        ("no map", "no readable weight_map"),
    ],
)
def test_a_broken_index_is_refused(tmp_path, weight_map, message):
    write_indexed(tmp_path, whole_tensors())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        load_weights(model_parts(Toy()), tmp_path, "hf")


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither consolidated\.safetensors nor"):
        load_weights(model_parts(Toy()), tmp_path, "mistral")
