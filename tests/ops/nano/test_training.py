"""What trains is what serves: the training kernels, the path without a cache, the export."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ops.nano.shape import TRAINED
from ops.nano.train.answers import AnswersLesson
from ops.nano.train.export import export
from ops.nano.train.kernels import TrainingKernels, initialise
from ops.nano.train.resume import restore, save
from ops.nano.train.trainer import Pace, Trainer
from ops.nano.train.vocabulary import OTHER, Vocabulary
from shards.attention import PagedCache, StepLayout
from shards.comm import SingleRank
from shards.kernels import Heads, Kernels
from shards.layers import Placement
from shards.rotary import text_rotation
from shards.runner import ModelRunner
from shards.text_model import Decoder
from shards.vision_model import VisionEncoder
from tests.shards.items import Part

CPU = torch.device("cpu")
SMALL = replace(TRAINED, text=replace(TRAINED.text, vocab_size=96, layers=2))


def test_whole_sequences_without_a_cache_are_computed_as_with_one():
    torch.manual_seed(0)
    place = Placement(SingleRank(), CPU, torch.float32, "torch")
    decoder = Decoder(SMALL, place)
    initialise(decoder, 2, torch.Generator().manual_seed(0))
    lengths, block_size = [7, 1, 5], 4
    hidden = torch.randn(sum(lengths), SMALL.text.dim)
    caches = [
        PagedCache.empty(
            8, block_size, SMALL.text.kv_heads, SMALL.text.head_dim, CPU, torch.float32
        )
        for _ in decoder.layers
    ]
    tables = ([0, 3], [1], [2, 5])
    items = [Part((0,) * count, 0, table) for count, table in zip(lengths, tables, strict=True)]
    with torch.no_grad():
        cached = decoder(hidden, StepLayout.of(items, block_size, CPU), caches)
        alone = decoder(hidden, StepLayout.uncached(lengths, CPU), [None] * len(caches))
    torch.testing.assert_close(alone, cached, rtol=1e-5, atol=1e-5)


def test_a_batch_in_one_product_is_its_sequences_one_by_one():
    torch.manual_seed(0)
    heads = Heads(4, 2, 8)
    qkv = torch.randn(3 * 5, heads.width)
    layout = StepLayout.uncached([5] * 3, CPU)
    rotation = text_rotation(layout.positions, heads.dim, 1e4)
    ours = TrainingKernels().attend_paged(qkv, heads, rotation, None, layout)
    reference = Kernels().attend_paged(qkv.clone(), heads, rotation, None, layout)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)

    pictures = Heads(2, 2, 8)
    qkv = torch.randn(15, pictures.width)
    ours = TrainingKernels().attend_packed(qkv, pictures, rotation, [5] * 3)
    reference = Kernels().attend_packed(qkv.clone(), pictures, rotation, [5] * 3)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ragged", [[3, 4], [4, 3]])
def test_ragged_batches_train_too(ragged):
    heads = Heads(2, 2, 8)
    qkv = torch.randn(7, heads.width, requires_grad=True)
    layout = StepLayout.uncached(ragged, CPU)
    rotation = text_rotation(layout.positions, heads.dim, 1e4)
    TrainingKernels().attend_paged(qkv, heads, rotation, None, layout).square().sum().backward()
    assert qkv.grad is not None
    assert bool((qkv.grad.abs().sum(1) > 0).all())


def test_norm_and_gate_are_the_references_and_narrow_where_products_are():
    x, weight = torch.randn(6, 32), torch.rand(32) + 0.5
    reference = Kernels().rms_norm(x, weight, 1e-5)
    torch.testing.assert_close(TrainingKernels().rms_norm(x, weight, 1e-5), reference)
    with torch.autocast("cpu", torch.bfloat16):
        ours = TrainingKernels().rms_norm(x, weight, 1e-5)
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours.float(), reference, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(TrainingKernels().gated(x), Kernels().gated(x))


@pytest.fixture(scope="module")
def lesson():
    return AnswersLesson(Vocabulary([1, 2, 3, 4, 10, 14, 15, 1065, 3528], 32768), 16, 512)


def test_what_is_exported_is_what_was_trained(lesson, tmp_path):
    """Bit for bit after rounding, rotated rows put back, every unknown id alike."""
    export(lesson, tmp_path)
    runner = ModelRunner.load(
        tmp_path, SingleRank(), device=CPU, dtype="float32", block_size=4, kv_cache_bytes=2**16
    )
    served, trained = dict(runner.model.named_parameters()), lesson.model["decoder"]
    for name, weight in trained.named_parameters():
        if "tok_embeddings" in name or "output" in name:
            whole = lesson.vocabulary.whole(weight.detach())
            assert torch.equal(served[name], whole.bfloat16().float())
            assert torch.equal(served[name][3528], weight[9].bfloat16().float())
            assert torch.equal(served[name][3529], weight[OTHER].bfloat16().float())
        else:
            assert torch.equal(served[name], weight.detach().bfloat16().float()), name
    encoder = VisionEncoder.load(tmp_path, device=CPU, dtype="float32")
    for name, weight in encoder.named_parameters():
        there = dict(lesson.model["encoder"].named_parameters())[name]
        assert torch.equal(weight, there.detach().bfloat16().float()), name


def test_one_step_of_learning_moves_every_weight(lesson):
    batch = lesson.batches[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = lesson.loss(batch)
    loss.backward()
    still = [name for name, weight in lesson.model.named_parameters() if weight.grad is None]
    assert not still
    assert bool(loss > 0)


def test_a_run_goes_on_elsewhere_from_its_compact_copy(lesson, tmp_path):
    """Weights, counts, vocabulary and logs come back, and the next step is taken."""
    here, there, copy = (tmp_path / name for name in ("here", "there", "copy"))
    for folder in (here, copy):
        folder.mkdir()
    pace = Pace(1e-3, steps=1, warmup=1)
    trainer = Trainer(lesson, here, pace, mixed=False)
    trainer.run(grade_every=1, save_every=1)
    (here / "vocabulary.json").write_text(json.dumps(lesson.vocabulary.ids))
    save(here, copy)
    assert sum(file.stat().st_size for file in copy.iterdir()) < 20e6

    assert restore(copy, there)
    again = AnswersLesson(lesson.vocabulary, 16, 512)
    resumed = Trainer(again, there, replace(pace, steps=2), mixed=False)
    assert (resumed.step, resumed.pictures) == (1, trainer.pictures) > (0, 0)
    saved = torch.load(here / "answers.pt", weights_only=True)["average"]
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, saved[name].bfloat16().float())
    assert (there / "answers.jsonl").read_text() == (here / "answers.jsonl").read_text()
    assert json.loads((there / "vocabulary.json").read_text()) == list(lesson.vocabulary.ids)
    resumed.run(grade_every=1, save_every=1)
    assert resumed.step == 2
    assert len((there / "answers.jsonl").read_text().splitlines()) == 2


def test_nothing_saved_is_nothing_restored(tmp_path):
    assert not restore(tmp_path, tmp_path / "run")


def test_a_batch_is_the_same_whenever_it_is_drawn(lesson):
    first, again = lesson.batches[3], lesson.batches[3]
    assert torch.equal(first.token_ids, again.token_ids)
    assert torch.equal(first.pictures.patches, again.pictures.patches)
    assert not torch.equal(first.token_ids[:50], lesson.batches[4].token_ids[:50])


def test_the_cut_vocabulary_gives_its_rows_back():
    vocabulary = Vocabulary([7, 3], 10)
    assert vocabulary.cut(np.array([3, 7, 9])).tolist() == [1, 2, OTHER]
    table = torch.tensor([[0.0], [3.0], [7.0]])
    assert vocabulary.whole(table).flatten().tolist() == [0, 0, 0, 3, 0, 0, 0, 7, 0, 0]
    assert vocabulary.crowd == pytest.approx(np.log(8))
