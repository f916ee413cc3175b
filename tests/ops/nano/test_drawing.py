"""What is drawn: the same by seed, apart by split, and labelled as it looks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ops.nano.drawing.chart import Chart
from ops.nano.drawing.labels import CHARACTERS, SLOTS, THINGS
from ops.nano.drawing.palette import COLOURS
from ops.nano.drawing.receipt import Receipt
from ops.nano.drawing.scene import KINDS, draw
from ops.nano.drawing.shapes import Shapes
from ops.nano.drawing.split import generator
from ops.nano.drawing.typefaces import typefaces
from ops.nano.drawing.words import COMMON, common, made_up
from ops.nano.drawing.writing import Writing
from shards.pixels import patches

SPLITS = ("train", "validation", "test")
ALL = ("page", *KINDS)
SLOT = {name: place for place, name in enumerate(SLOTS)}


def scenes(kind, count=12, columns=8, rows=8, split="train", exact=True):
    return [
        draw(generator(split, "tests", kind, number), kind, columns, rows, split, exact=exact)
        for number in range(count)
    ]


@pytest.mark.parametrize("kind", ALL)
def test_a_seed_draws_the_same_picture_ever(kind):
    for one, other in zip(scenes(kind, 3), scenes(kind, 3), strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert one.facts == other.facts
        assert np.array_equal(one.labels, other.labels)
    assert len({scene.image.tobytes() for scene in scenes(kind)}) == 12


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(("columns", "rows"), [(3, 2), (4, 5), (10, 2), (16, 16)])
def test_pictures_and_labels_are_of_the_size_that_was_asked_for(kind, columns, rows):
    for scene in scenes(kind, 4, columns, rows, exact=False):
        grid, values = patches(scene.image)
        assert (grid.columns, grid.rows) == (columns, rows)
        assert scene.labels.shape == (len(values), len(SLOTS))
        assert (scene.labels >= 0).all()
        assert (scene.labels < list(SLOTS.values())).all()


def test_splits_share_no_word_and_no_typeface():
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(common(one)) & set(common(other))
        assert not set(typefaces(one)) & set(typefaces(other))
    assert sum(len(common(split)) for split in SPLITS) == len(COMMON)
    rng = np.random.default_rng(0)
    coined = {split: {made_up(rng, split, 4) for _ in range(200)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not coined[one] & coined[other]
        assert not coined[one] & set(common(other))


def test_splits_share_no_seed():
    draws = {split: generator(split, 1).integers(2**60) for split in SPLITS}
    assert len(set(draws.values())) == len(SPLITS)


def test_every_shape_is_labelled_where_it_lies():
    for scene in scenes("shapes", 30):
        assert isinstance(scene.facts, Shapes)
        shapes = scene.facts.shapes
        for shape in shapes:
            x, y = shape.box.centre
            label = scene.labels[int(y // 16) * 8 + int(x // 16)]
            if shape.name != "ring":  # whose middle is open
                assert THINGS[label[SLOT["thing"]]] == shape.name
                assert COLOURS[label[SLOT["colour"]] - 1] == shape.colour
            assert label[SLOT["centres"]] >= 1
        assert scene.labels[:, SLOT["centres"]].sum() == len(shapes)
        shown = scene.labels[scene.labels[:, SLOT["thing"]] > 0]
        assert set(shown[:, SLOT["total"]]) <= {len(shapes)}


def test_shapes_do_not_touch_and_stand_clear_of_borders_between_thirds():
    for scene in scenes("shapes", 40, exact=False):
        assert isinstance(scene.facts, Shapes)
        boxes = [shape.box for shape in scene.facts.shapes]
        assert not any(one.touches(other, 0) for one, other in itertools.combinations(boxes, 2))
        for shape in scene.facts.shapes:
            x, y = shape.box.centre
            assert shape.column == int(3 * x / scene.image.width)
            assert shape.row == int(3 * y / scene.image.height)


def test_letters_are_labelled_where_they_stand():
    """Read off the labels, patch by patch, a line gives its letters back."""
    found = 0
    for scene in scenes("writing", 30, columns=10, rows=3):
        assert isinstance(scene.facts, Writing)
        if len(scene.facts.lines) != 1:
            continue
        read = "".join(
            CHARACTERS[label[SLOT[slot]] - 1]
            for label in scene.labels.reshape(3, 10, -1).max(0)
            for slot in ("first", "second", "third")
            if label[SLOT[slot]]
        )
        text = scene.facts.lines[0].text
        # More than three narrow letters in a patch are not all noted.
        assert set(read) <= set(text)
        found += read == text
    assert found >= 10


def test_a_receipt_adds_up():
    for scene in scenes("receipt", 30):
        assert isinstance(scene.facts, Receipt)
        cents = [round(float(price) * 100) for _, price in scene.facts.items]
        assert sum(cents) == round(float(scene.facts.total) * 100)


def test_the_values_of_a_chart_can_be_told_apart():
    for scene in scenes("chart", 30):
        assert isinstance(scene.facts, Chart)
        values = [bar.value for bar in scene.facts.bars]
        assert len(set(values)) == len(values) >= 2
        assert len({bar.label for bar in scene.facts.bars}) == len(values)
        bars = scene.labels[scene.labels[:, SLOT["thing"]] == THINGS.index("bar")]
        for label in bars:
            bar = scene.facts.bars[label[SLOT["line"]] - 1]
            assert COLOURS[label[SLOT["colour"]] - 1] == bar.colour
            assert sorted(values, reverse=True)[label[SLOT["rank"]] - 1] == bar.value
