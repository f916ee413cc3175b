"""``python -m shards``: the spine of the engine from a checkpoint to text, in real processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from ops.nano.checkpoint import NANO, write_checkpoint
from shards.__main__ import main

pytestmark = pytest.mark.multirank
SMALL = replace(
    NANO,
    text=replace(NANO.text, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, hidden_dim=128),
    vision=replace(NANO.vision, hidden_size=88, heads=1, layers=1, intermediate_size=128),
)
QUESTION = "What is in this picture?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    write_checkpoint(path, SMALL)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "gradient.png"
    Image.linear_gradient("L").resize((50, 33)).convert("RGBA").save(file)
    return file


def test_two_ranks_answer_what_one_answers(folder, picture, capsys):
    arguments = [str(folder), QUESTION, "--image", str(picture), "--max-tokens", "12", "--json"]
    assert main(arguments) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--tp", "2"]) == 0
    together = json.loads(capsys.readouterr().out)
    assert together["choices"] == alone["choices"]
    (choice,) = together["choices"]
    assert choice["completion_tokens"] == 12
    assert choice["finish_reason"] == "length"
    # 3 rows of 4 patches and a break, <s> [INST] … [/INST]
    assert together["prompt_tokens"] > 15
    assert together["tokens_per_s"] > 0
    assert together["weights_gb_per_s"] > 0


def test_choices_are_printed_apart_and_speed_goes_to_stderr(folder, capsys):
    arguments = [str(folder), "Hello", "--max-tokens", "5", "--n", "2", "--temperature", "1.5"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    first, second = printed.out.split("[1] ")
    assert first.startswith("[0] ")
    assert first.removeprefix("[0] ").strip() != second.strip()
    assert "10 out" in printed.err
    assert "GB/s of weights" in printed.err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["--tp", "3"], "3 ranks do not divide heads 4"),
        (["--image", "no such file"], "no such file cannot be read as a picture"),
        (["--temperature", "7"], "temperature: must be between 0 and 2"),
        (["--max-tokens", "200000"], "may be at most 128000"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(folder, capsys, changes, reason):
    assert main([str(folder), QUESTION, *changes]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path), QUESTION]) == 2
    assert main([str(tmp_path / "absent"), QUESTION]) == 2
    no_model, no_folder = capsys.readouterr().err.splitlines()
    assert "neither params.json nor config.json" in no_model
    assert "absent is not a folder" in no_folder


def test_damaged_weights_end_in_one_line(folder, tmp_path, capsys):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    params = json.loads((tmp_path / "params.json").read_text())
    params["n_layers"] = 3
    (tmp_path / "params.json").write_text(json.dumps(params))
    assert main([str(tmp_path), QUESTION]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "layers.2" in line


def test_a_killed_rank_ends_in_one_line_and_leaves_no_process(folder):
    options = ("--tp", "2", "--max-tokens", "100000", "--temperature", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "shards", str(folder), "Hello", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    too_late = threading.Timer(90, process.kill)
    too_late.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1), process.stderr.read()
        helpers = psutil.Process(process.pid).children()
        ranks = [one for one in helpers if "spawn_main" in " ".join(one.cmdline())]
        assert len(ranks) == 2
        killed_at = time.monotonic()
        ranks[-1].kill()
        process.stdout.read()
        errors = process.stderr.read().decode().splitlines()
        assert process.wait() == 1
        assert time.monotonic() - killed_at < 30
    finally:
        too_late.cancel()
        process.kill()
        process.wait()
    (line,) = errors
    assert re.fullmatch(r"python -m shards: rank [01] was killed by SIGKILL", line)
    psutil.wait_procs(helpers, timeout=10)
    assert not any(one.is_running() for one in helpers)
