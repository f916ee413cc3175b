"""A replica's log lines: fields shown, secrets blanked, the request's id where Serve has one."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from ray._common.formatters import JSONFormatter
from ray.serve._private.logging_utils import ServeContextFilter, ServeFormatter

from serve_app.log import ReplicaHandler, logger

SECRET = "prompt was hunter2"


class File(logging.Handler):
    """Serve's own file, as far as formatting goes."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(ServeContextFilter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def replica():
    """``replica(json=…)`` makes this process log as a replica does; gives the lines."""
    ours = logging.getLogger("serve_app.test_log")

    def log_to_file(*, json: bool) -> list[str]:
        file = File(JSONFormatter() if json else ServeFormatter("gateway", "x1"))
        serve = logging.Logger("serve")
        serve.addHandler(file)
        ours.handlers = [ReplicaHandler(serve, "gateway", json=json)]
        ours.setLevel(logging.INFO)
        ours.propagate = False
        return file.lines

    yield log_to_file
    ours.handlers, ours.propagate = [], True


def test_an_event_is_a_line_of_text(replica):
    lines = replica(json=False)
    logger("serve_app.test_log").info("request settled", request_id="r-1", team="a team")
    [line] = lines
    assert line.startswith("INFO ")
    said = 'request settled tier=gateway request_id=r-1 team="a team"'
    assert line.endswith(f"gateway x1 r-1 -- {said}")


def test_an_event_is_a_json_object_with_its_fields(replica):
    lines = replica(json=True)
    logger("serve_app.test_log").warning("left", request_id="r-1", team="t", tokens=3)
    told = json.loads(lines[0])
    assert (told["message"], told["levelname"], told["tier"]) == ("left", "WARNING", "gateway")
    assert (told["request_id"], told["team"], told["tokens"]) == ("r-1", "t", 3)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_standard_librarys_loggers_say_has_its_extra_shown_and_blanked(replica, as_json):
    lines = replica(json=as_json)
    log = logging.getLogger("serve_app.test_log")
    log.error("disagree in %d", 2, extra={"request_id": "r-2", "booked_tokens": 7})
    log.info("with https://x/?key=hunter2 and sk-pixtral-abc")
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("a chore failed")
    text = "\n".join(lines)
    assert len(lines) == 3
    assert "disagree in 2" in lines[0]
    assert "r-2" in lines[0]
    assert '"booked_tokens": 7' in lines[0] or "booked_tokens=7" in lines[0]
    assert "hunter2" not in text
    assert "sk-pixtral-abc" not in text
    assert "ValueError" in lines[2]
    assert sys._getframe().f_code.co_name in lines[2]
