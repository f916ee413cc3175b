"""Callers of every kind, over plain HTTP: content, mistaken and limited ones, those that leave,
whose group dies under them, and too many of them.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from PIL import Image

from tests.e2e.system import System

PICTURE = Path(__file__).parents[2] / "ops" / "examples" / "shapes.png"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Traffic:
    system: System

    def good(self) -> list[int]:
        """Text and pictures, whole and streamed; a picture that was seen before, and a new one."""
        return [
            self._ask([_picture(PICTURE.read_bytes()), _text("What is this?")]),
            self._ask([_text("Hello!")], stream=True),
            self._ask([_picture(PICTURE.read_bytes()), _text("And this?")], stream=True),
            self._ask([_picture(_noise()), _text("And that?")]),
        ]

    def bad(self) -> list[int]:
        """No messages, no picture where one is promised, no such key, model or page."""
        return [
            self._post({"model": self.system.model}),
            self._ask([_picture(b"no picture"), _text("What is this?")]),
            self._post({"model": self.system.model}, key="sk-pixtral-unknown"),
            self._ask([_text("Hello!")], model="unknown"),
            self._post({}, path="/v1/nothing"),
        ]

    def limited(self) -> list[tuple[int, str]]:
        """A key that may ask once a minute, asking twice, and one whose budget holds nothing;
        statuses and error codes."""
        slow = self._new_key({"requests_per_minute": 1})
        broke = self._new_key({"budget_usd": "0.000000001"})
        return [self._refused(key) for key in (slow, slow, broke)]

    def hang_up(self) -> None:
        """Leave after the first bytes of a long answer."""
        with self._talk() as response:
            response.read(64)

    def lose_a_rank(self) -> bool:
        """Kill a rank of the group in the midst of an answer; whether the caller was told."""
        with self._talk() as response:
            response.read(64)
            (group,) = json.loads(self.system.home.pixtral("status", "--json").stdout)["groups"]
            psutil.Process(group["rank_pids"][-1]).kill()
            return b"generation_failed" in response.read()

    @contextmanager
    def crowd(self, callers: int) -> Iterator[set[int]]:
        """Each asks again as soon as it is answered, until the block ends; the statuses seen."""
        statuses: set[int] = set()
        over = threading.Event()

        def ask(number: int) -> None:
            while not over.is_set():
                statuses.add(self._ask([_text(f"Count to {number}.")], max_tokens=16))

        with ThreadPoolExecutor(callers) as pool:
            asking = [pool.submit(ask, number) for number in range(callers)]
            try:
                yield statuses
            finally:
                over.set()
        for each in asking:
            each.result()

    def _new_key(self, limits: dict[str, Any]) -> str:
        body = {"team": "default", "name": f"limited-{uuid4().hex}", "limits": limits}
        with _DIRECT.open(self._request(body, path="/admin/keys"), timeout=60) as response:
            return str(json.load(response)["secret"])

    def _refused(self, key: str) -> tuple[int, str]:
        body = self._question([_text("Hello!")])
        try:
            with _DIRECT.open(self._request(body, key=key), timeout=300) as response:
                response.read()
                return int(response.status), "ok"
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)["error"]["code"]

    def _talk(self) -> Any:
        body = {**self._question([_text("Talk!")]), "max_tokens": 4000, "ignore_eos": True}
        return _DIRECT.open(self._request({**body, "stream": True}), timeout=120)

    def _ask(self, content: list[dict[str, Any]], **changes: Any) -> int:
        return self._post({**self._question(content), **changes})

    def _question(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        messages = [{"role": "user", "content": content}]
        return {"model": self.system.model, "max_tokens": 8, "messages": messages}

    def _post(self, body: dict[str, Any], **how: str) -> int:
        try:
            with _DIRECT.open(self._request(body, **how), timeout=300) as response:
                response.read()
                return int(response.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def _request(
        self, body: dict[str, Any], *, key: str | None = None, path: str = "/v1/chat/completions"
    ) -> urllib.request.Request:
        return urllib.request.Request(
            self.system.root + path,
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {key or self.system.key}",
                "Content-Type": "application/json",
            },
        )


def _noise() -> bytes:
    """A PNG like no other."""
    file = BytesIO()
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(file, "PNG")
    return file.getvalue()


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(picture: bytes) -> dict[str, Any]:
    data = base64.b64encode(picture).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
