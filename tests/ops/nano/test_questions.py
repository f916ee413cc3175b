"""What is asked of drawn pictures has the answer that is given, by an independent look at facts."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from ops.nano.drawing.chart import Chart
from ops.nano.drawing.labels import SHAPES
from ops.nano.drawing.palette import COLOURS
from ops.nano.drawing.receipt import Receipt
from ops.nano.drawing.scene import KINDS, draw
from ops.nano.drawing.shapes import Shapes
from ops.nano.drawing.split import generator
from ops.nano.drawing.writing import Writing
from ops.nano.exam import KINDS as EXAMINED
from ops.nano.exam import write
from ops.nano.questions.dialogue import Dialogue, about, about_nothing, about_two
from ops.nano.questions.nothing import NO_PICTURE
from ops.nano.questions.turn import TASKS


def dialogues(kind: str, count: int = 60) -> list[Dialogue]:
    made = []
    for number in range(count):
        rng = generator("train", "questions", kind, number)
        made.append(about(rng, draw(rng, kind, 8, 8, "train", exact=True), 6))
    return made


def asked(kind: str, task: str):
    return [
        (dialogue.scenes[0].facts, turn)
        for dialogue in dialogues(kind)
        for turn in dialogue.turns
        if turn.task == task
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_are_known_and_what_is_spelled_is_in_the_answer(kind):
    for dialogue in dialogues(kind):
        assert dialogue.turns
        for turn in dialogue.turns:
            assert turn.task in TASKS
            assert turn.question
            rest = turn.answer
            for part in turn.spelled:
                _, found, rest = rest.partition(part)
                assert found


def test_counts_are_counts():
    cases = 0
    for facts, turn in asked("shapes", "count"):
        assert isinstance(facts, Shapes)
        words = turn.question.lower()
        for shape in SHAPES:
            if re.search(rf"\b{shape}(e?s)\b", words):
                expected = sum(each.name == shape for each in facts.shapes)
                break
        else:
            named = [colour for colour in COLOURS if f"{colour} " in words]
            expected = sum(not named or each.colour == named[0] for each in facts.shapes)
        assert turn.answer == str(expected), (turn, facts)
        cases += 1
    assert cases > 50


def test_colours_and_shapes_are_of_the_one_that_is_meant():
    for facts, turn in asked("shapes", "colour"):
        assert isinstance(facts, Shapes)
        for shape in facts.shapes:
            if f"the {shape.name}" in turn.question:
                assert turn.answer == shape.colour
        assert turn.answer in COLOURS
    for facts, turn in asked("shapes", "shape"):
        assert isinstance(facts, Shapes)
        for shape in facts.shapes:
            if f" {shape.colour}" in turn.question:
                assert turn.answer == shape.name
        assert turn.answer in SHAPES


def test_the_leftmost_is_leftmost():
    seen = 0
    for facts, turn in [*asked("shapes", "shape"), *asked("shapes", "colour")]:
        assert isinstance(facts, Shapes)
        if "leftmost" in turn.question:
            first = min(facts.shapes, key=lambda shape: shape.box.left + shape.box.right)
            assert turn.answer in (first.name, first.colour)
            seen += 1
    assert seen


def test_what_is_read_is_what_was_printed():
    for task in ("word", "number"):
        for facts, turn in asked("writing", task):
            assert isinstance(facts, Writing)
            texts = [line.text for line in facts.lines]
            named = re.search(r"\b(first|second|third|last)\b", turn.question)
            places = {"first": 0, "second": 1, "third": 2, "last": -1}
            expected = texts[places[named[1]]] if named else " ".join(texts)
            assert turn.answer == expected
            assert "".join(turn.spelled) == expected.replace(" ", "")


def test_receipts_and_charts_are_read_right():
    for facts, turn in asked("receipt", "receipt"):
        assert isinstance(facts, Receipt)
        for name, price in facts.items:
            if re.search(rf"\b{name}\b", turn.question, re.IGNORECASE):
                assert turn.answer == price
    for facts, turn in asked("chart", "chart"):
        assert isinstance(facts, Chart)
        tallest = max(facts.bars, key=lambda bar: bar.value)
        if "tallest" in turn.question:
            assert turn.answer == tallest.label
        if "highest value?" in turn.question and turn.question.lower().startswith("what is"):
            assert turn.answer == str(tallest.value)


def test_json_answers_hold_the_keys_that_were_asked_for():
    keys: Counter[str] = Counter()
    for kind in KINDS:
        for _, turn in asked(kind, "json"):
            answer = json.loads(turn.answer)
            assert all(key in turn.question for key in answer)
            keys.update(list(answer))
    assert {"shape", "colour", "position", "count", "text", "total", "tallest"} <= set(keys)


def test_two_pictures_are_compared_in_order():
    seen = 0
    for number in range(60):
        rng = generator("train", "pairs", number)
        pair = tuple(draw(rng, "shapes", 6, 5, "train", exact=True) for _ in range(2))
        dialogue = about_two(rng, (pair[0], pair[1]), 5)
        first, second = (scene.facts for scene in pair)
        assert isinstance(first, Shapes)
        assert isinstance(second, Shapes)
        for turn in dialogue.turns:
            if turn.task == "comparison" and "more shapes" in turn.question:
                more = len(first.shapes) - len(second.shapes)
                expected = "the first" if more > 0 else "the second" if more else "both the same"
                assert turn.answer == expected
                seen += 1
    assert seen > 5


def test_without_a_picture_nothing_is_made_up():
    rng = generator("train", "nothing")
    dialogue = about_nothing(rng, draw(rng, "chart", 8, 8, "train", exact=True), 4)
    assert not dialogue.scenes
    assert all(turn.task == "no_picture" for turn in dialogue.turns)
    assert any(turn.answer == NO_PICTURE for turn in dialogue.turns)


def test_the_exam_asks_every_task_alike(tmp_path):
    write(tmp_path / "one", 2, "test")
    write(tmp_path / "two", 2, "test")
    text = (tmp_path / "one" / "questions.jsonl").read_text()
    assert text == (tmp_path / "two" / "questions.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert Counter(entry["task"] for entry in entries) == dict.fromkeys(EXAMINED, 2)
    for entry in entries:
        pictures = {"comparison": 2, "no_picture": 0}.get(entry["task"], 1)
        assert len(entry["images"]) == pictures
        assert all((tmp_path / "one" / name).is_file() for name in entry["images"])
        assert ("before" in entry) == (entry["task"] == "follow_up")
        assert ("schema" in entry) == (entry["task"] == "json")
