"""One rank's model: however a prompt is cut, batched or paged, its logits are the same."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shards.comm import SingleRank
from shards.errors import PlanError, RequestError
from shards.runner import ModelRunner
from shards.shared_memory import Reduction
from shards.step import Advance, Begin, Draws, PictureKey, PictureSpan, StepPlan
from shards.vision_model import VisionEncoder
from tests.shards.reference import FAMILIES, save_mistral
from tests.shards.sequences import (
    GREEDY,
    DrivenSequence,
    draw,
    forward,
    generate,
    plan_of,
    run,
    scattered_blocks,
    step,
)

CPU = torch.device("cpu")
FAMILY = FAMILIES["12b"]
PROMPTS = FAMILY.prompts()
THREE = PROMPTS["three pictures"]
TOKEN_BYTES = 2 * 3 * 4 * 16 * 4  # keys and values, layers, kv heads, head_dim, float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_mistral(FAMILY.model(), tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(scope="module")
def features(folder):
    encoder = VisionEncoder.load(folder, device=CPU, dtype="float32")
    return {
        title: encoder.encode(prompt.patches(), prompt.grids).numpy() if prompt.grids else None
        for title, prompt in PROMPTS.items()
    }


@pytest.fixture
def load(folder):
    torch.set_num_threads(1)

    def load(block_size: int = 8, cache_bytes: int = 2**20) -> ModelRunner:
        return ModelRunner.load(
            folder,
            SingleRank(),
            device=CPU,
            dtype="float32",
            block_size=block_size,
            kv_cache_bytes=cache_bytes,
        )

    return load


@pytest.fixture
def drive(features):
    """A prompt on its way through a runner, in blocks out of order."""

    def drive(
        runner: ModelRunner, title: str, blocks: list[int] | None = None, draws: Draws = GREEDY
    ) -> DrivenSequence:
        own = scattered_blocks(runner, 1)[0] if blocks is None else blocks
        return DrivenSequence(runner, title, PROMPTS[title], features[title], own, draws)

    return drive


def assert_same(logits, expected):
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


def test_incremental_decode_equals_full_prefill(load, drive):
    runner = load()
    sequence = drive(runner, "three pictures")
    ((tokens, logits),) = generate(runner, [sequence], 6)
    for known in range(6):
        again = drive(runner, "three pictures")
        again.tokens.extend(tokens[:known])
        assert_same(draw(runner, [again])[0], logits[known])


# Prompt: 79 tokens; pictures begin at 4, 31 and 50, so most of these cut one in the middle.
@pytest.mark.parametrize("chunk", [1, 7, 16, 40, 78])
def test_any_chunking_equals_the_whole(load, drive, chunk):
    runner = load()
    expected = draw(runner, [drive(runner, "three pictures")])
    sequence = drive(runner, "three pictures")
    while sequence.missing > chunk:
        assert len(step(runner, (sequence, chunk))) == 0
    assert_same(draw(runner, [sequence]), expected)


def test_batched_equals_alone(load, drive):
    runner = load()
    alone = {title: generate(runner, [drive(runner, title)], 5)[0] for title in PROMPTS}
    blocks = scattered_blocks(runner, len(PROMPTS))
    together = [drive(runner, title, own) for title, own in zip(PROMPTS, blocks, strict=True)]
    # They enter one after the other, so that some decode while others prefill in chunks.
    generate(runner, together[:1], 1)
    logits = step(runner, (together[0], None), (together[1], None), (together[2], 33))
    assert_same(logits[0], alone["text"][1][1])
    assert_same(logits[1], alone["one picture"][1][0])
    done = {"text": 2, "one picture": 1, "three pictures": 0, "second turn": 0}
    for (title, drawn), sequence_logits in zip(
        done.items(), generate(runner, together, 3), strict=True
    ):
        tokens, logits = sequence_logits
        assert tokens == alone[title][0][drawn : drawn + 3]
        assert_same(logits, alone[title][1][drawn : drawn + 3])


def test_paged_equals_contiguous(load, drive):
    paged, contiguous = load(block_size=4), load(block_size=256)
    expected = generate(contiguous, [drive(contiguous, "second turn", [0])], 6)[0]
    tokens, logits = generate(paged, [drive(paged, "second turn")], 6)[0]
    assert tokens == expected[0]
    assert_same(logits, expected[1])


def test_pictures_change_the_answer(load, drive, features):
    runner = load()
    expected = draw(runner, [drive(runner, "one picture")])
    other = DrivenSequence(
        runner,
        "other",
        PROMPTS["one picture"],
        features["one picture"][::-1].copy(),
        scattered_blocks(runner, 1)[0],
    )
    assert (draw(runner, [other]) - expected).abs().max() > 0.1


def test_run_draws_for_the_sequences_that_have_computed_all_they_know(load, drive):
    runner = load()
    blocks = scattered_blocks(runner, 3)
    likeliest = [
        draw(runner, [drive(runner, title)]).index_fill(-1, torch.tensor([10]), -torch.inf)
        for title in ("text", "one picture")
    ]
    parts = [
        (drive(runner, "text", blocks[0]), None),
        (drive(runner, "second turn", blocks[1]), 9),
        (drive(runner, "one picture", blocks[2]), None),
    ]
    drawn = runner.run(plan_of(runner, parts))
    assert [one.tokens[0].token_id for one in drawn] == [int(row.argmax()) for row in likeliest]
    assert all(math.isnan(token.logprob) for one in drawn for token in one.tokens)
    # Who misses one token decodes without being named, so these two go on and the other does not.
    rows = [one.row for one in drawn]
    ended = tuple(state.row for state in runner.batch if state.row < rows[0])
    assert [one.row for one in runner.run(StepPlan(ended=ended))] == rows


def test_meanwhile_is_done_once_before_this_machine_computes(load, drive, monkeypatch):
    runner = load()
    sequence = drive(runner, "text")
    events: list[str] = []
    compute = runner.forward

    def noted(works):
        events.append("forward")
        return compute(works)

    monkeypatch.setattr(runner, "forward", noted)
    plan = plan_of(runner, [(sequence, None)])
    assert len(runner.run(plan, lambda: events.append("meanwhile"))) == 1
    assert events == ["meanwhile", "forward"]
    skip = StepPlan(advances=(Advance(0, 0),))
    assert list(runner.run(skip, lambda: events.append("again"))) == []
    assert events == ["meanwhile", "forward", "again"]


# -- drafts ---------------------------------------------------------------------------------------

PENALTIES: dict[str, Any] = {
    "repetition_penalty": 1.3,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.3,
}
SETTINGS = {
    "greedy": GREEDY,
    "greedy, penalised": replace(GREEDY, prompt_ids=(30, 31, 32), **PENALTIES),
    "seeded": Draws(seed=11, choice=1, temperature=0.9, top_p=0.95, banned=(10,)),
    "seeded, penalised": Draws(seed=5, choice=0, temperature=1.2, banned=(10,), **PENALTIES),
}


def speculate(
    runner: ModelRunner,
    sequence: DrivenSequence,
    count: int,
    guess: Callable[[list[int]], list[int]],
) -> tuple[list[int], int]:
    """``count`` tokens with drafts, and how many steps they took after the first."""
    drawn = run(runner, [(sequence, None)])[0]
    steps = 0
    while len(drawn) < count:
        (tokens,) = run(runner, [(sequence, None)], [guess(drawn)])
        drawn += tokens
        steps += 1
    return drawn[:count], steps


@pytest.mark.parametrize("draws", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("title", ["text", "one picture"])
def test_drafts_change_how_many_steps_it_takes_and_no_token(load, drive, draws, title):
    runner, count = load(), 12
    plain_sequence = drive(runner, title, draws=draws)
    plain = [run(runner, [(plain_sequence, None)])[0][0] for _ in range(count + 4)]
    blocks = scattered_blocks(runner, 1, seed=1)[0]

    def right(known: list[int]) -> list[int]:
        return plain[len(known) : len(known) + 3]

    def wrong(known: list[int]) -> list[int]:
        return [(token + 1) % 500 for token in right(known)]

    def partly(known: list[int]) -> list[int]:
        first, *others = right(known)
        return [first, *[(token + 1) % 500 for token in others]]

    def placeholder(known: list[int]) -> list[int]:
        return [10, *right(known)]

    for guess, steps in ((right, 3), (wrong, 11), (partly, 6), (placeholder, 11)):
        sequence = drive(runner, title, blocks, draws)
        assert speculate(runner, sequence, count, guess) == (plain[:count], steps), guess.__name__
        # What was rejected leaves nothing behind in the mirror.
        assert sequence.state is not None
        assert sequence.state.token_ids[: -sequence.state.drawn] == list(PROMPTS[title].token_ids)
        assert sequence.missing == 1


def test_drafts_of_one_sequence_stand_beside_others_that_decode_and_prefill(load, drive):
    runner = load()
    alone = {
        title: generate(runner, [drive(runner, title)], 5)[0][0]
        for title in ("text", "one picture", "second turn")
    }
    blocks = scattered_blocks(runner, 3)
    text, picture, turn = (
        drive(runner, title, own) for title, own in zip(alone, blocks, strict=True)
    )
    assert run(runner, [(text, None), (picture, None)]) == [
        alone["text"][:1],
        alone["one picture"][:1],
    ]
    parts = [(text, None), (picture, None), (turn, None)]
    drafts = [alone["text"][1:3], [], []]
    assert run(runner, parts, drafts) == [
        alone["text"][1:4],
        alone["one picture"][1:2],
        alone["second turn"][:1],
    ]


def test_masks_bound_each_draw_of_a_drafted_sequence(load, drive):
    runner = load()
    sequence = drive(runner, "text")
    run(runner, [(sequence, None)])
    allowed = (37, 41)
    masks = tuple((1 << token).to_bytes(64, "little") for token in allowed)
    assert sequence.state is not None
    advance = Advance(sequence.state.row, 2, drafts=(37,), masks=masks)
    (drawn,) = runner.run(StepPlan(advances=(advance,)))
    assert tuple(token.token_id for token in drawn.tokens) == allowed


# -- pictures -------------------------------------------------------------------------------------


def test_features_travel_as_bits_of_bfloat16(load, drive, features):
    runner = load()
    rounded = torch.from_numpy(features["one picture"]).bfloat16()
    prompt, blocks = PROMPTS["one picture"], scattered_blocks(runner, 1)[0]
    as_float = DrivenSequence(runner, "float", prompt, rounded.float().numpy(), blocks)
    expected = draw(runner, [as_float])
    bits = rounded.view(torch.uint16).numpy()
    assert_same(draw(runner, [DrivenSequence(runner, "bits", prompt, bits, blocks)]), expected)


def test_a_picture_may_be_changed_by_its_owner_once_it_is_added(load, features):
    runner = load()
    mine = features["one picture"].copy()
    blocks = scattered_blocks(runner, 1)[0]
    first = DrivenSequence(runner, "b", PROMPTS["one picture"], mine, blocks)
    mine[:] = 0
    expected = DrivenSequence(runner, "c", PROMPTS["one picture"], features["one picture"], blocks)
    assert_same(draw(runner, [first]), draw(runner, [expected]))


def test_the_cache_is_as_many_whole_blocks_as_fit(load):
    runner = load(block_size=4, cache_bytes=4 * TOKEN_BYTES * 5 + 1)
    assert runner.kv_bytes_per_token == TOKEN_BYTES
    assert (runner.num_blocks, runner.block_size) == (5, 4)
    with pytest.raises(PlanError, match="hold no block"):
        load(block_size=4, cache_bytes=4 * TOKEN_BYTES - 1)


def test_features_and_placeholders_must_agree(load, drive):
    runner = load()
    (begin,) = plan_of(runner, [(drive(runner, "one picture"), None)]).begun
    fewer = replace(begin, pictures=(PictureSpan(PictureKey("one picture", 0), 14),))
    plan = StepPlan(begun=(fewer,), advances=(Advance(begin.row, len(begin.token_ids)),))
    with pytest.raises(RequestError, match=r"15 \[IMG\] tokens in the step, but 14 feature rows"):
        runner.run(plan)


def test_a_placeholder_without_a_picture_is_refused(load):
    runner = load()
    begin = Begin(0, (1, 10), 0, (0,), GREEDY)
    with pytest.raises(RequestError, match=r"1 \[IMG\] tokens in the step, but 0 feature rows"):
        runner.run(StepPlan(begun=(begin,), advances=(Advance(0, 2),)))


@pytest.mark.parametrize("shape", [(15, 127), (15,)])
def test_features_of_another_encoder_are_refused(load, shape):
    with pytest.raises(RequestError, match=r"features must be \[patches, 128\]"):
        load().add_picture(PictureKey("a", 0), np.zeros(shape, np.float32))


def test_a_dropped_picture_is_gone(load, drive):
    runner = load()
    plan = plan_of(runner, [(drive(runner, "one picture"), None)])
    runner.drop_picture(PictureKey("one picture", 0))
    runner.drop_picture(PictureKey("one picture", 0))
    with pytest.raises(RequestError, match=r"picture 0 of one picture is not held"):
        runner.run(plan)


class CountingRank(SingleRank):
    """Counts the all-reduces of tensors of hidden width."""

    count = 0

    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        self.count += tensor.dim() == 2
        return tensor


@pytest.mark.parametrize(("title", "expected"), [("text", 1 + 3 * 2), ("one picture", 2 + 3 * 2)])
def test_two_all_reduces_per_layer_and_one_per_embedding_and_projection(
    folder, drive, title, expected
):
    comm = CountingRank()
    runner = ModelRunner.load(
        folder, comm, device=CPU, dtype="float32", block_size=8, kv_cache_bytes=2**20
    )
    comm.count = 0
    forward(runner, (drive(runner, title), None))
    assert comm.count == expected
