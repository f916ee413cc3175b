import io
import logging

import pytest
from rich.console import Console

from ops.progress import Progress, quiet_serve


def shown(terminal):
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=terminal, highlight=False, width=100))
    with progress.step("tiers", "starting") as step:
        step.outcome = "[all] run"
    progress.note("by the [way]")
    return out.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    start, end, note = shown(terminal=False).splitlines()
    assert start == "  tiers      starting …"
    assert end == "✓ tiers      [all] run (0.0 s)"
    assert note == "! by the [way]"


def test_a_terminal_sees_a_spinner_and_the_outcome():
    text = shown(terminal=True)
    assert "⠋" in text
    assert "[all] run" in text


def test_a_step_that_fails_is_not_ticked_off():
    out = io.StringIO()
    with pytest.raises(KeyError), Progress(Console(file=out)).step("tiers", "starting"):
        raise KeyError
    assert "✓" not in out.getvalue()


def test_serves_chatter_is_kept_out_only_while_asked(caplog):
    logger = logging.getLogger("ray.serve")
    caplog.set_level(logging.INFO, logger="ray.serve")
    with quiet_serve():
        logger.info("chatter")
        logger.warning("matters")
    logger.info("again")
    assert [record.message for record in caplog.records] == ["matters", "again"]
