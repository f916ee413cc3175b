"""The command against the running system: what a newcomer does first, and first mistakes."""

import json
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import pytest

SHAPES = str(Path(__file__).parent.parent.parent / "ops" / "examples" / "shapes.png")
# 256 x 192 pixels: 12 rows of 16 patches, each row with its break or end.
SHAPES_TOKENS = 12 * (16 + 1)
SEEN = "A red circle, a blue square and a green star."


@pytest.fixture
def ask(system):
    def ask(*args):
        result = system.home.pixtral("ask", "What is in this picture?", *args)
        assert result.returncode == 0, result.stderr
        return result

    return ask


def test_a_picture_question_streams_an_answer_and_its_accounts(ask):
    result = ask("--image", SHAPES, "--temperature", "0")
    assert result.stdout.strip() == SEEN
    assert f"+ {SHAPES_TOKENS} image tokens in, " in result.stderr
    assert " out (stop)" in result.stderr
    assert "cost $0.00" in result.stderr
    assert "untrained" not in result.stderr


def test_counts_and_cost_are_exact(ask):
    answer = json.loads(
        ask("--image", SHAPES, "--max-tokens", "4", "--temperature", "0", "--json").stdout
    )
    assert (answer["image_tokens"], answer["output_tokens"]) == (SHAPES_TOKENS, 4)
    prompt = answer["text_tokens"] + answer["image_tokens"]
    # An unpriced model is charged as Pixtral Large: $2 and $6 per million tokens.
    assert Decimal(answer["cost_input"]) == prompt * Decimal("0.000002")
    assert Decimal(answer["cost_output"]) == 4 * Decimal("0.000006")
    assert Decimal(answer["cost_total"]) == Decimal(answer["cost_input"]) + Decimal(
        answer["cost_output"]
    )


def test_a_seed_gives_the_same_answer_and_pictures_matter(ask):
    def text(*args):
        return json.loads(ask("--seed", "7", "--max-tokens", "12", "--json", *args).stdout)["text"]

    assert text("--image", SHAPES) == text("--image", SHAPES)
    assert text("--image", SHAPES) != text()


def test_the_printed_curl_line_works_in_a_shell(system):
    printed = system.home.pixtral("up", "--config", str(system.home.config_file)).stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("  curl ")]
    answer = subprocess.run(
        ["bash", "-c", f"{line} --silent --fail"], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout)["usage"]["completion_tokens"] > 0


def test_a_second_up_is_quick_and_prints_the_same(system):
    started = time.monotonic()
    again = system.home.pixtral("up", "--json", "--config", str(system.home.config_file))
    assert again.returncode == 0
    assert json.loads(again.stdout) == system.up
    assert time.monotonic() - started < 10


def test_status_shows_the_tiers_and_an_idle_cache(system):
    status = json.loads(system.home.pixtral("status", "--json").stdout)
    assert status["ready"]
    assert {tier["name"] for tier in status["tiers"]} == {
        *("Gateway", "Preprocess", "Vision", "DecoderGroup")
    }
    assert all(tier["status"] == "HEALTHY" for tier in status["tiers"])


def test_doctor_is_content_with_a_running_system(system):
    result = system.home.pixtral("doctor", "--config", str(system.home.config_file))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "gpt-4"], "'gpt-4' is not served here; 'pixtral-nano' is (model_not_found"),
        (["--max-tokens", "0"], "max_tokens"),
        (["--key", "sk-wrong"], "API key"),
    ],
)
def test_a_mistake_is_one_line_in_the_apis_words(system, args, reason):
    result = system.home.pixtral("ask", "Hi", *args)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("pixtral: ")
    assert reason in line
    assert result.stdout == ""
