"""What a folder of graded questions may hold, and how each mistake in it is named."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ops.eval.question_set import FILE, read_set
from ops.problem import Problem


def folder_of(tmp_path, *lines):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / FILE).write_text(text)
    return tmp_path


def test_a_line_may_say_as_little_as_question_and_answers(tmp_path):
    (question,) = read_set(folder_of(tmp_path, {"question": "Hi?", "answers": ["Hello"]}))
    assert (question.task, question.metric, question.images) == ("all", "exact", ())
    body = question.body("nano", 8)
    assert body == {
        "model": "nano",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}],
        "temperature": 0,
        "max_tokens": 8,
    }


def test_a_line_may_say_everything(tmp_path):
    schema = {"type": "object"}
    line = {
        "images": ["a.png"],
        "question": "And as JSON?",
        "answers": ["{}"],
        "task": "json",
        "metric": "json",
        "schema": schema,
        "before": [["What is it?", "a dot"]],
    }
    (question,) = read_set(folder_of(tmp_path, line, ""))
    body = question.body("nano", 8)
    asked, answered, last = body["messages"]
    assert [part["type"] for part in asked["content"]] == ["image_url", "text"]
    assert asked["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert answered == {"role": "assistant", "content": "a dot"}
    assert last["content"] == [{"type": "text", "text": "And as JSON?"}]
    assert body["response_format"]["json_schema"]["schema"] == schema


GOOD = {"question": "Hi?", "answers": ["Hello"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ({"question": "Hi?"}, "answers must be a list of texts, at least one"),
        (GOOD | {"answers": []}, "answers must be a list of texts, at least one"),
        (GOOD | {"question": 3}, "question must be a text"),
        (GOOD | {"answer": "x"}, "unknown key answer"),
        (GOOD | {"metric": "bleu"}, "metric must be one of exact, relaxed, anls, json"),
        (GOOD | {"schema": "x"}, "schema must be an object"),
        (GOOD | {"images": "a.png"}, "images must be a list of file names"),
        (GOOD | {"images": ["b.png"]}, "b.png is not there"),
        (GOOD | {"before": [["x"]]}, "before must be a list of [question, answer]"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, line, reason):
    with pytest.raises(Problem, match=rf"{FILE}:2: ") as refused:
        read_set(folder_of(tmp_path, GOOD, line))
    assert reason in str(refused.value)


def test_an_absent_or_empty_set_is_refused(tmp_path):
    with pytest.raises(Problem, match="cannot be read"):
        read_set(tmp_path / "nowhere")
    with pytest.raises(Problem, match="holds no question"):
        read_set(folder_of(tmp_path, ""))
