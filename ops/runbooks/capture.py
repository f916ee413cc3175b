"""Takes the runbooks' pictures anew, of a running system's real Ray dashboard. For developers.

    apt install chromium chromium-driver && pip install -e '.[dev]'
    pixtral up --detach
    python -m ops.runbooks.capture

Let somebody ask meanwhile: the pages show what happens now. Nothing is written but the PNGs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ops.edge import Endpoints
from ops.state import State

FOLDER = Path(__file__).parent / "images"
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
COOKIE = "ray-authentication-token"
# Charts and tables come after the page; the dashboard asks for them every few seconds.
SETTLE_S = 6.0
MAX_BYTES = 150 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """``page`` is what follows the dashboard's address; ``{group}`` in it is a decoder replica and
    ``{node}`` its node."""

    name: str
    page: str
    height: int
    width: int = 1280


PICTURES = (
    Picture("serve", "#/serve", 1060),
    Picture("decoder", "#/serve/applications/pixtral/DecoderGroup", 720),
    Picture("replica", "#/serve/applications/pixtral/DecoderGroup/{group}", 1100),
    Picture("actors", "#/actors", 900, 1600),
    Picture("cluster", "#/cluster", 1100, 2000),
    Picture("logs", "#/logs/?nodeId={node}&folder=serve", 900),
)


def capture(dashboard: str, token: str, folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    """One PNG for each; the files.

    Raises:
        ValueError: one is too large for a repository.
    """
    shown = _shown(dashboard, token)
    files = []
    with _browser() as browser:
        # A cookie needs a page of its host.
        browser.get(dashboard)
        browser.add_cookie({"name": COOKIE, "value": token, "path": "/"})
        for picture in pictures:
            browser.set_window_size(picture.width, picture.height)
            browser.get(f"{dashboard}/{picture.page.format(**shown)}")
            browser.refresh()
            time.sleep(SETTLE_S)
            file = folder / f"{picture.name}.png"
            _save(browser.get_screenshot_as_png(), file)
            if file.stat().st_size > MAX_BYTES:
                raise ValueError(f"{file} has {file.stat().st_size} bytes; {MAX_BYTES} at most")
            files.append(file)
    return files


def _save(png: bytes, file: Path) -> None:
    """In 64 colours, which a page of text does not miss: a third of the bytes."""
    Image.open(BytesIO(png)).convert("RGB").quantize(64).save(file, optimize=True)


@contextmanager
def _browser() -> Iterator[Any]:
    """Headless, with a profile that is gone afterwards, and asking nobody but the dashboard."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    with tempfile.TemporaryDirectory() as profile:
        for argument in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *("no-proxy-server", "hide-scrollbars", f"user-data-dir={profile}"),
        ):
            options.add_argument(f"--{argument}")
        browser = webdriver.Chrome(options, Service(str(DRIVER)))
        try:
            yield browser
        finally:
            browser.quit()


def _shown(dashboard: str, token: str) -> dict[str, str]:
    """What the pages' addresses name."""
    request = urllib.request.Request(
        f"{dashboard}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as response:
        deployments = json.load(response)["applications"]["pixtral"]["deployments"]
    replica = deployments["DecoderGroup"]["replicas"][0]
    return {"group": replica["replica_id"], "node": replica["node_id"]}


def main(arguments: Sequence[str] | None = None) -> None:
    names = [picture.name for picture in PICTURES]
    parser = argparse.ArgumentParser(prog="python -m ops.runbooks.capture", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("names", nargs="*", choices=[*names, []], help="else all")
    given = parser.parse_args(arguments)
    state = State.open()
    running = state.running()
    if running is None:
        parser.error("nothing runs: `pixtral up --detach` first")
    given.folder.mkdir(exist_ok=True)
    token = (state.folder / "ray-token").read_text().strip()
    wanted = [picture for picture in PICTURES if picture.name in (given.names or names)]
    for file in capture(Endpoints.of(running.config).dashboard, token, given.folder, wanted):
        print(file)


if __name__ == "__main__":
    main()
