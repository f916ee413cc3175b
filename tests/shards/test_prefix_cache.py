from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from shards.blocks import BlockAllocator
from shards.engine import Engine
from shards.grid import Grid
from shards.prefix_cache import Chain, PlacedPicture, PrefixCache, private_root, shared_root
from shards.request import Delta, GenerationRequest, Picture, Sampling, Tenant
from tests.shards.engine_fixtures import (
    IMG,
    IMG_BREAK,
    IMG_END,
    drain,
    ids,
    picture_request,
    simulated_engine,
    text_request,
    tokens_of,
)


@dataclass(frozen=True)
class Spelled:
    token_ids: Sequence[int]

    def tokens(self, start: int, stop: int) -> Sequence[int]:
        return self.token_ids[start:stop]


def names(
    token_ids: Sequence[int], *pictures: PlacedPicture, root: bytes = shared_root("")
) -> list[bytes]:
    chain = Chain(root, 4, pictures)
    return [chain.name(index, Spelled(token_ids)) for index in range(len(token_ids) // 4)]


# -- names ------------------------------------------------------------------------------------


def test_a_name_stands_for_all_that_came_before():
    first = names((1, 2, 3, 4, 5, 6, 7, 8))
    assert names((1, 2, 3, 4, 5, 6, 7, 9))[0] == first[0]
    assert names((1, 2, 3, 4, 5, 6, 7, 9))[1] != first[1]
    other = names((0, 2, 3, 4, 5, 6, 7, 8))
    assert not {*first} & {*other}


def test_names_of_different_roots_never_meet():
    roots = [shared_root(""), shared_root("a"), shared_root("b"), private_root(1), private_root(2)]
    made = {name for root in roots for name in names(range(64), root=root)}
    assert len(made) == len(roots) * 16


def test_names_tell_pictures_and_their_places_apart():
    tokens = (1, 10, 10, 14, 10, 10, 15, 2, 10, 10, 14, 10)

    def placed(start: int, content: str, tokens: Sequence[int] = tokens) -> tuple[bytes, ...]:
        return tuple(names(tokens, PlacedPicture(start, start + 6, content.encode())))

    base = placed(1, "x")
    assert base != placed(1, "y")
    assert base[2] != placed(6, "x")[2]
    # The same block further down in the picture, after the same text.
    assert len({placed(start, "x")[0] for start in (0, 1, 2, 3)}) == 4
    # A picture that ends before a block does not make it another, but for what it follows.
    assert names(tokens, PlacedPicture(8, 14, b"z"))[:2] == names(tokens)[:2]


def test_two_pictures_are_not_taken_for_another_two():
    tokens = (10, 15, 10, 15)
    first = names(tokens, PlacedPicture(0, 2, b"ab"), PlacedPicture(2, 4, b"c"))
    assert first != names(tokens, PlacedPicture(0, 2, b"a"), PlacedPicture(2, 4, b"bc"))


def test_a_fork_knows_only_what_is_shared():
    chain = Chain(shared_root(""), 4)
    one, two = Spelled((1, 2, 3, 4, 5, 6, 7, 8)), Spelled((1, 2, 3, 4, 9, 9, 9, 9))
    assert chain.name(1, one)
    fork = chain.fork(1)
    assert fork.name(0, two) == chain.name(0, one)
    assert fork.name(1, two) != chain.name(1, one)


# -- blocks -----------------------------------------------------------------------------------


def test_the_last_token_is_always_left_to_compute():
    blocks = BlockAllocator(4)
    cache, chain, sequence = PrefixCache(blocks, 4), Chain(shared_root(""), 4), Spelled(range(8))
    table = blocks.allocate(2)
    assert cache.keep(chain, sequence, table, 0, computed=8) == 2
    assert cache.match(chain, sequence, known=8) == table[:1]
    assert cache.match(chain, Spelled(range(9)), known=9) == table


def test_only_blocks_that_are_wholly_computed_are_named():
    blocks = BlockAllocator(4)
    cache, chain, sequence = PrefixCache(blocks, 4), Chain(shared_root(""), 4), Spelled(range(9))
    table = blocks.allocate(3)
    assert cache.keep(chain, sequence, table, 0, computed=7) == 1
    assert cache.match(chain, sequence, known=9) == table[:1]


def test_idle_blocks_are_found_until_the_room_is_needed_least_recently_used_first():
    blocks = BlockAllocator(3)
    for name in (b"old", b"new"):
        (block,) = blocks.allocate(1)
        blocks.name(block, name)
        blocks.release([block])
    assert blocks.free == 3
    old = blocks.find(b"old")
    assert old is not None
    blocks.share([old])
    blocks.release([old])  # used again: "new" is the older one now
    blocks.allocate(2)
    assert blocks.find(b"new") is None
    assert blocks.find(b"old") == old
    blocks.allocate(1)
    assert blocks.find(b"old") is None


def test_of_a_table_the_end_goes_first():
    blocks = BlockAllocator(2)
    table = blocks.allocate(2)
    for block, name in zip(table, (b"first", b"second"), strict=True):
        blocks.name(block, name)
    blocks.release(table)
    blocks.allocate(1)
    assert blocks.find(b"first") == table[0]
    assert blocks.find(b"second") is None


# -- requests ---------------------------------------------------------------------------------


def rows(*grids: Grid, value: float = 1) -> list[np.ndarray]:
    return [np.full((grid.patches, 3), value, dtype=np.float32) for grid in grids]


def salted(request: GenerationRequest, salt: str) -> GenerationRequest:
    return replace(request, tenant=Tenant(salt, 1, salt))


def answer(engine: Engine, request: GenerationRequest, features=()) -> Delta:
    engine.add(request, features)
    return drain(engine)[-1]


def test_what_was_computed_before_is_not_computed_again():
    engine, runner = simulated_engine()
    first = answer(engine, text_request("first", "the same beginning", max_tokens=1))
    assert (first.cached_tokens, first.prompt_tokens, runner.computed) == (0, 18, 18)
    second = answer(engine, text_request("second", "the same beginning and more", max_tokens=1))
    assert (second.cached_tokens, second.prompt_tokens) == (16, 27)
    assert runner.computed == 18 + 11
    stats = engine.stats()
    assert (stats.queried_tokens_total, stats.cached_tokens_total) == (45, 16)
    assert stats.prompt_tokens_total == 18 + 11


def test_the_answer_is_found_by_the_next_turn():
    engine, runner = simulated_engine()
    first = text_request("first", "a question", max_tokens=9, ignore_eos=True)
    engine.add(first)
    said = tokens_of(drain(engine), "first")
    before = runner.computed
    prompt = (*first.prompt, *said, *ids("so"))
    last = answer(engine, GenerationRequest("second", prompt, Sampling(seed=0, max_tokens=1)))
    # 18 tokens of the first turn were computed: the last one drawn was not.
    assert last.cached_tokens == 16
    assert runner.computed - before == len(prompt) - 16


def test_no_team_finds_what_another_sent():
    engine, runner = simulated_engine()
    for salt in ("a", "b"):
        last = answer(engine, salted(text_request("r", "the same beginning", max_tokens=1), salt))
        assert last.cached_tokens == 0
    assert runner.computed == 2 * 18
    again = answer(engine, salted(text_request("r", "the same beginning", max_tokens=1), "b"))
    assert again.cached_tokens == 16


@pytest.mark.parametrize("cache", [True, False])
def test_choices_share_their_prompt_with_and_without_the_cache(cache):
    engine, runner = simulated_engine(prefix_cache=cache, max_step_tokens=32)
    engine.add(text_request("r", "a" * 10, max_tokens=3, n=3, ignore_eos=True))
    drain(engine)
    # The prompt, the two tokens that both others compute again, and two drawn ones of each.
    assert runner.computed == 10 + 2 * 2 + 3 * 2


def test_switched_off_no_request_finds_another():
    engine, _ = simulated_engine(prefix_cache=False)
    for _ in range(2):
        last = answer(engine, text_request("r", "the same beginning", max_tokens=1))
        assert last.cached_tokens == 0
    assert engine.stats().cached_tokens_total == 0


def test_a_second_turn_about_a_picture_sends_it_to_no_rank():
    grid = Grid(2, 3)  # tokens 3 .. 10 of see…ok
    engine, runner = simulated_engine()
    answer(engine, picture_request("first", grid, max_tokens=1), rows(grid))
    runner.given.clear()
    request = picture_request("second", grid, max_tokens=1)
    longer = replace(request, prompt=(*request.prompt, *ids(" and then")))
    last = answer(engine, longer, rows(grid))
    assert last.cached_tokens == 12
    assert (last.image_tokens, last.cached_image_tokens) == (8, 8)
    assert runner.given == []
    (tally,) = [one for one in engine.tallies() if one.request_id == "second"]
    assert (tally.text, tally.image, tally.cached_text, tally.cached_image) == (10, 0, 4, 8)


def test_a_picture_found_in_part_is_sent_and_only_the_rest_computed():
    grid = Grid(2, 3)
    engine, runner = simulated_engine(block_size=8)
    answer(engine, picture_request("first", grid, max_tokens=1), rows(grid))
    before = runner.computed
    last = answer(engine, picture_request("second", grid, max_tokens=1), rows(grid))
    assert (last.cached_tokens, last.cached_image_tokens) == (8, 5)
    assert runner.computed - before == 13 - 8


def test_another_picture_of_the_same_shape_is_another_prefix():
    grid = Grid(2, 3)
    engine, _ = simulated_engine(max_step_tokens=64)
    first = answer(engine, picture_request("r", grid, max_tokens=1), rows(grid))
    other = picture_request("r", grid, content="other", max_tokens=1)
    last = answer(engine, other, rows(grid, value=2))
    assert (last.cached_tokens, last.cached_image_tokens) == (0, 0)
    # The simulated model sees the pictures.
    assert last.token_ids != first.token_ids


def test_text_before_a_picture_is_found_whatever_the_picture():
    grid = Grid(1, 2)
    run = tuple(grid.token_ids(IMG, IMG_BREAK, IMG_END))
    engine, _ = simulated_engine()
    for content, found in (("x", 0), ("y", 8), ("x", 16)):
        prompt = (*ids("look at "), *run, *ids("please"))
        request = GenerationRequest(
            "r", prompt, Sampling(seed=0, max_tokens=1), (Picture(grid, content),)
        )
        assert answer(engine, request, rows(grid)).cached_tokens == found


def test_a_cache_that_is_full_of_old_prompts_makes_room():
    engine, _ = simulated_engine(num_blocks=6)
    for number in range(20):
        prompt = "abcdefghijklmnopqrst"[number:] + "uvwxyz" * 2
        answer(engine, text_request(f"{number}", prompt[:18], max_tokens=5))
        assert engine.stats().blocks_free == 6
