"""`pixtral eval` against an endpoint that answers from a list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.cli import app
from ops.eval.question_set import FILE

QUESTIONS: list[dict[str, Any]] = [
    {"question": "Colour?", "answers": ["red"], "task": "colour"},
    {"question": "Shape?", "answers": ["star"], "task": "shape"},
    {"question": "Value?", "answers": ["100"], "task": "chart", "metric": "relaxed"},
    {"question": "Word?", "answers": ["sitting"], "task": "word", "metric": "anls"},
    {
        "question": "JSON?",
        "answers": ['{"a": 1}'],
        "task": "json",
        "metric": "json",
        "schema": {"type": "object"},
    },
]
ANSWERS = {
    "Colour?": "Red.",
    "Shape?": "circle",
    "Value?": "103",
    "Word?": "kitten",
    "JSON?": '{"a":1}',
}


@contextmanager
def endpoint(
    answers: dict[str, str], bodies: list[dict[str, Any]], status: int = 200
) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "some-model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            if status != 200:
                self._send(status, {"error": {"message": "no", "code": None, "type": "busy"}})
                return
            asked = body["messages"][-1]["content"][-1]["text"]
            self._send(200, {"choices": [{"message": {"content": answers[asked]}}]})

        def _send(self, code: int, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, QUESTIONS)))
    return tmp_path


def test_every_task_is_asked_and_graded_by_its_measure(folder):
    bodies: list[dict[str, Any]] = []
    with endpoint(ANSWERS, bodies) as url:
        result = CliRunner().invoke(app, ["eval", str(folder), "--base-url", url, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["model"] == "some-model"
    scores = {row["task"]: row["score"] for row in report["tasks"]}
    assert scores == {
        "colour": 1,
        "shape": 0,
        "chart": 1,
        "word": pytest.approx(1 - 3 / 7),
        "json": 1,
    }
    valid = {row["task"]: row["valid"] for row in report["tasks"]}
    assert valid == {"colour": None, "shape": None, "chart": None, "word": None, "json": 1}
    assert [each["answer"] for each in report["answers"]] == list(ANSWERS.values())
    assert {body["model"] for body in bodies} == {"some-model"}
    assert all(body["temperature"] == 0 for body in bodies)


def test_the_table_names_every_task_and_the_mean(folder):
    with endpoint(ANSWERS, []) as url:
        result = CliRunner().invoke(app, ["eval", str(folder), "--base-url", url])
    assert result.exit_code == 0, result.output
    for task in ("colour", "shape", "chart", "word", "json", "all"):
        assert task in result.stdout
    assert "71.4%" in result.stdout  # (1 + 0 + 1 + 4/7 + 1) / 5


def test_so_many_of_each_task_may_be_asked(tmp_path):
    twice = [{**line, "answers": ["x"]} for line in QUESTIONS[:2]] + QUESTIONS[:2]
    (tmp_path / FILE).write_text("\n".join(map(json.dumps, twice)))
    bodies: list[dict[str, Any]] = []
    with endpoint(ANSWERS, bodies) as url:
        asked = ["eval", str(tmp_path), "--limit", "1", "--base-url", url, "--json"]
        report = json.loads(CliRunner().invoke(app, asked).stdout)
    assert [(row["task"], row["questions"]) for row in report["tasks"]] == [
        ("colour", 1),
        ("shape", 1),
    ]
    assert [each["right"] for each in report["answers"]] == [["x"], ["x"]]


def test_tasks_may_be_chosen(folder):
    bodies: list[dict[str, Any]] = []
    chosen = ["eval", str(folder), "--task", "shape"]
    with endpoint(ANSWERS, bodies) as url:
        result = CliRunner().invoke(app, [*chosen, "--base-url", url])
    assert result.exit_code == 0, result.output
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--task", "poetry"], "no task poetry; there are chart, colour, json, shape, word"),
        (["--model", "somewhere"], "--model starts a system, --base-url names another: give one"),
    ],
)
def test_what_cannot_be_graded_is_refused_before_anything_is_asked(folder, arguments, reason):
    bodies: list[dict[str, Any]] = []
    with endpoint(ANSWERS, bodies) as url:
        asked = ["eval", str(folder), "--base-url", url, *arguments]
        result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert not bodies


def test_a_refusal_ends_in_one_line(folder):
    with endpoint(ANSWERS, [], status=503) as url:
        result = CliRunner().invoke(app, ["eval", str(folder), "--base-url", url])
    assert result.exit_code == 1
    assert "pixtral: no (busy, HTTP 503)" in result.stderr
