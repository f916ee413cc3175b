"""Odd, broken and hostile pictures through the REST path: a right answer or a typed 4xx, and the
service answers others throughout."""

from __future__ import annotations

import base64
import io
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shards.tokenizer import Tokenizer
from tests.serve_app.gateway.client_cases import Endpoint, text_part
from tests.serve_app.gateway.conftest import Gateway, make_config
from tests.serve_app.gateway.store import Store
from tests.serve_app.preprocess.bombs import bombs, polyglots, truncated
from tests.serve_app.preprocess.pictures import encoded, noise
from tests.serve_app.preprocess.pillow_corpus import pillow_images
from tests.serve_app.preprocess.test_formats import EVERY

TYPED = {
    "invalid_picture",
    "unsupported_picture",
    "picture_too_large",
    "picture_too_costly",
    "invalid_value",
}


@pytest.fixture(scope="module")
def endpoint(
    tokenizer: Tokenizer, founded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """Every format is allowed, and no picture is seen so large that it does not fit."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("hostile") / "accounts"))
    preprocess = {
        "formats": EVERY,
        "max_picture_tokens": 120,
        "max_picture_pixels": 16_000_000,
        "worker_memory_bytes": 512 * 2**20,
        "picture_timeout_s": 8.0,
    }
    gateway = Gateway(
        tokenizer, Store.on_sqlite(folder), make_config(folder, preprocess=preprocess)
    )
    yield gateway.endpoint
    gateway.stop()


def ask(endpoint: Endpoint, data: bytes) -> Any:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    content = [part, text_part("What is it?")]
    return endpoint.chat("/v1", messages=[{"role": "user", "content": content}], max_tokens=1)


def judged(endpoint: Endpoint, files: Mapping[str, bytes]) -> Counter[str]:
    """How often each answer came; others are answered between."""
    with ThreadPoolExecutor(4) as clients:
        outcomes = Counter(clients.map(lambda item: outcome(endpoint, *item), files.items()))
        assert ask(endpoint, encoded(noise(40, 30), "PNG")).status_code == 200
    return outcomes


def outcome(endpoint: Endpoint, name: str, data: bytes) -> str:
    if hash(name) % 40 == 0:
        assert ask(endpoint, encoded(noise(40, 30), "PNG")).status_code == 200
    answer = ask(endpoint, data)
    if answer.status_code == 200:
        [picture] = answer.json()["usage"]["prompt_tokens_details"]["pictures"]
        return f"200, {size_of(data) == (picture['width'], picture['height'])}"
    error = answer.json()["error"]
    assert answer.status_code in (400, 413), (name, answer.text)
    assert error["code"] in TYPED, (name, error)
    assert error["param"] == "messages[0].content[0].image_url", (name, error)
    assert "0x" not in error["message"], (name, error)
    return f"{answer.status_code} {error['code']}"


def size_of(data: bytes) -> tuple[int, int]:
    """As Pillow has it, upright."""
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    orientation = Image.Image.getexif(image).get(0x0112, 1)
    return (height, width) if orientation in range(5, 9) else (width, height)


def told(what: str, outcomes: Counter[str]) -> str:
    counts = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{what} through the REST path: {counts.replace(', True', '').replace('200', '200 ok')}"


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_pillow_s_own_test_pictures_are_answered_or_refused(endpoint, record_property):
    # Larger ones than are taken are refused unread, and cost this test its time.
    files = {name: data for name, data in pillow_images().items() if len(data) < 10 * 2**20}
    outcomes = judged(endpoint, files)
    assert outcomes["200, False"] == 0
    assert outcomes["200, True"] > 400
    record_property("told", told(f"Pillow's {len(files)} test files", outcomes))


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_bombs_are_refused_or_harmless(endpoint, record_property):
    outcomes = judged(endpoint, bombs())
    record_property("told", told(f"{sum(outcomes.values())} bombs", outcomes))


@pytest.mark.filterwarnings("ignore")
def test_what_is_two_things_is_seen_as_one_or_refused(endpoint, record_property):
    outcomes = judged(endpoint, polyglots())
    record_property("told", told(f"{sum(outcomes.values())} polyglots", outcomes))


@pytest.mark.filterwarnings("ignore")
def test_what_is_cut_short_is_refused(endpoint, record_property):
    outcomes = judged(endpoint, truncated())
    assert set(outcomes) == {"400 invalid_picture"}
    record_property("told", told(f"{sum(outcomes.values())} truncated pictures", outcomes))
