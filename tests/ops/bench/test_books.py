"""The bookkeeping of the engine's measurement: bytes, operations, times, tables."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from ops.bench.__main__ import app
from ops.bench.engine import limits, matvec
from ops.bench.engine.matvec import MatrixVector
from ops.bench.engine.model import PINNED, pinned, step_parameters, written
from ops.bench.engine.plot import svg
from ops.bench.engine.prompts import picture_prompt, text_prompt
from ops.bench.engine.report import Goal, Report, Row, read_report
from ops.bench.engine.run import (
    Run,
    Spread,
    TokensDifferError,
    interleaved,
    prompts_of,
    require_equal,
)
from ops.bench.engine.speed import prompt_flops
from ops.bench.engine.theirs import Theirs
from ops.bench.engine.work import attention_flops, products
from ops.nano.checkpoint import parameters
from shards.grid import Grid
from tests.ops.bench.conftest import LIMITS, TINY


def test_the_pinned_model_is_the_one_that_the_goals_are_set_for():
    assert round(parameters(PINNED) / 1e6) == 476
    assert round(step_parameters(PINNED) / 1e6) == 315


def test_the_pinned_model_may_not_be_another(monkeypatch, tmp_path):
    monkeypatch.setattr("ops.bench.engine.model.PINNED", TINY)
    with pytest.raises(ValueError, match="476 M"):
        pinned(tmp_path)


def test_a_step_reads_every_weight_of_the_decoder_but_the_table(tiny):
    unread = ("vision", "tok_embeddings")
    with safe_open(tiny.folder / "consolidated.safetensors", framework="pt") as file:
        names = file.keys()
        read = sum(file.get_tensor(name).numel() for name in names if not name.startswith(unread))
    assert tiny.step_bytes == 4 * read


def test_a_model_is_written_once_and_by_its_recipe(tiny, cache):
    before = (tiny.folder / "consolidated.safetensors").stat().st_mtime_ns
    assert written("tiny", TINY, cache) == tiny
    assert (tiny.folder / "consolidated.safetensors").stat().st_mtime_ns == before
    other = replace(TINY, text=replace(TINY.text, hidden_dim=64))
    assert written("tiny", other, cache).folder != tiny.folder
    assert not list(cache.glob(".*"))


def test_operations_are_those_that_torch_counts(tiny):
    """transformers computes scores of all pairs, seen or not, and every prompt's last logits."""
    prompt = picture_prompt(tiny, 1, 64, 12)
    tokens, patches = len(prompt.token_ids), 16
    theirs = Theirs(tiny, frozenset(), attention="eager")
    with FlopCounterMode(display=False) as counter:
        theirs.run([prompt], 1)
    linear, attention = prompt_flops(tiny, prompt)
    heads = TINY.text.heads * TINY.text.head_dim
    unseen = 4 * (tokens * (tokens - 1) // 2) * heads * TINY.text.layers
    assert products(TINY, tokens, patches)
    # The rotary tables are small products too.
    assert counter.get_total_flops() == pytest.approx(linear + attention + unseen, rel=2e-3)


def test_pictures_attend_to_themselves_and_words_to_what_was_said():
    vision = 4 * (4**2 + 6**2) * TINY.vision.heads * TINY.vision.head_dim * TINY.vision.layers
    text = 4 * (1 + 2 + 3) * TINY.text.heads * TINY.text.head_dim * TINY.text.layers
    assert attention_flops(TINY, 3, [Grid(2, 2), Grid(2, 3)]) == vision + text


def test_a_text_prompt_needs_no_products_of_pictures():
    assert {product.name for product in products(TINY, 5, 0)} == {
        *("qkv", "o", "gate-up", "down", "head")
    }


def test_prompts_are_as_long_as_asked_and_never_the_same():
    model = written_shape()
    assert len(text_prompt(model, 1, 20).token_ids) == 20
    prompt = picture_prompt(model, 1, 512, 23)
    assert len(prompt.token_ids) == 1079
    assert prompt.pictures != picture_prompt(model, 2, 512, 23).pictures
    ask = prompts_of(lambda number: text_prompt(model, number, 20), 4)
    assert len({prompt.token_ids for number in range(3) for prompt in ask(number)}) == 12


def written_shape():
    from ops.bench.engine.model import Model

    return Model("pinned", Path("nowhere"), PINNED)


def test_rates_of_a_run():
    run = Run(((1, 2, 3), (4, 5, 6)), ((1.0, 1), (2.0, 2), (3.0, 2), (4.0, 1)), begun_s=2.0)
    assert (run.first_s, run.total_s, run.count) == (1.0, 4.0, 6)
    assert run.tokens_per_s == 1.5
    assert run.decode_tokens_per_s == 1.5
    assert run.decode_steps_per_s == 1.0


def test_runs_alternate_and_the_first_round_is_left_out():
    calls: list[tuple[str, int]] = []

    def run(name: str):
        def one(number: int) -> int:
            calls.append((name, number))
            return number

        return one

    results = interleaved(2, {"a": run("a"), "b": run("b")})
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert results == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("mine", "yours", "told"),
    [
        (((1, 2), (3, 4)), ((1, 2), (3, 5)), "answer 1 parts at its token 1"),
        (((1, 2),), ((1,),), "answer 0 parts at its token 1"),
        (((1,),), ((1,), (1,)), "1 answers beside 2"),
    ],
)
def test_tokens_that_differ_are_told_by_their_place(mine, yours, told):
    require_equal("x", mine, mine)
    with pytest.raises(TokensDifferError, match=told):
        require_equal("x", mine, yours)


def test_limits_of_this_machine(tiny):
    ways = MatrixVector(tiny)
    measured = limits.measure(tiny, ways, tokens=32, patches=16, passes=2)
    assert measured.summed > 1e8
    assert measured.matvec >= measured.matvecs["head, eager"] > 0
    assert {"head, ours", "feed-forward, ours"} <= set(measured.matvecs)
    assert set(measured.shapes) == {product.name for product in products(TINY, 32, 16)}
    assert min(measured.shapes.values()) <= measured.gemm <= max(measured.shapes.values())
    assert ways.stretch() > 1e6


def test_a_machine_without_a_compiler_says_so(tiny, monkeypatch):
    def fail(module):
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(matvec, "compiled", fail)
    ways = MatrixVector(tiny)
    assert {name for name in ways.bests(1) if "ours" not in name} == {
        "feed-forward, eager",
        "head, eager",
    }
    assert ways.failed == "RuntimeError: no compiler"


ROW = Row(
    "alone",
    "One request.",
    {"tokens/s": Spread(12.0, 11.0), "tokens/s, transformers": Spread(6.0, 5.0)},
    (
        Goal("weights read, of the best matrix-vector", 0.8, 0.75),
        Goal("latency", 0.9, 0.5, at_least=False),
    ),
)


def test_a_report_tells_goals_met_and_missed(tmp_path):
    report = Report(LIMITS, 2).with_row(ROW)
    table = report.as_markdown()
    assert "| alone | weights read, of the best matrix-vector | 0.8 | ≥ 0.75 | met |" in table
    assert "| alone | latency | 0.9 | ≤ 0.5 | **missed** |" in table
    assert "| alone | tokens/s | 12 | 11 |" in table
    file = tmp_path / "report.json"
    file.write_text(report.as_json())
    assert read_report(file)["scenarios"][0]["figures"]["tokens/s"] == {"best": 12.0, "median": 11}


def test_the_plot_shows_what_was_measured():
    drawn = svg(Report(LIMITS, 2).with_row(ROW).as_dict())
    root = ElementTree.fromstring(drawn)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"alone", "12.0", "6.0", "80%"} <= set(texts)
    (mark,) = root.iter("{http://www.w3.org/2000/svg}line")
    bars = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if rect.get("x")]
    assert float(mark.attrib["x1"]) < float(bars[-1].attrib["x"]) + float(bars[-1].attrib["width"])


def test_the_command_writes_all_and_fails_only_when_tokens_differ(monkeypatch, tmp_path, tiny):
    monkeypatch.setattr("ops.bench.engine.model.pinned", lambda: tiny)
    monkeypatch.setattr("ops.bench.engine.limits.measure", lambda *_: LIMITS)
    scenarios = {"alone": lambda lab: ROW, "eight": parting}
    monkeypatch.setattr("ops.bench.engine.lab.SCENARIOS", scenarios)
    file, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    run = CliRunner().invoke
    done = run(app, ["engine", "--only", "alone", "--json", str(file), "--plot", str(plot)])
    assert done.exit_code == 0
    assert "**missed**" in done.stdout
    assert json.loads(file.read_text())["scenarios"][0]["scenario"] == "alone"
    assert plot.read_text().startswith("<svg")
    assert run(app, ["engine", "--only", "eight"]).exit_code == 1
    assert run(app, ["engine", "--only", "nine"]).exit_code == 2


def parting(lab):
    raise TokensDifferError("eight: answer 0 parts")


def test_weights_are_transformers_own_in_float32(tiny):
    theirs = Theirs(tiny, frozenset())
    assert {parameter.dtype for parameter in theirs.llava.parameters()} == {torch.float32}
    assert sum(p.numel() for p in theirs.llava.parameters()) == parameters(TINY)
