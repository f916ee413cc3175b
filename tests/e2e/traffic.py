"""Callers of every kind, over plain HTTP: content ones, mistaken ones, impatient ones, too many."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.system import System

PICTURE = Path(__file__).parents[2] / "ops" / "examples" / "shapes.png"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Traffic:
    system: System

    def good(self) -> list[int]:
        """Text and pictures, whole and streamed."""
        return [
            self._ask([_picture(PICTURE.read_bytes()), _text("What is this?")]),
            self._ask([_text("Hello!")], stream=True),
            self._ask([_picture(PICTURE.read_bytes()), _text("And this?")], stream=True),
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

    def hang_up(self) -> None:
        """Leave after the first bytes of a long answer."""
        body = {**self._question([_text("Talk!")]), "max_tokens": 4000, "stream": True}
        with _DIRECT.open(self._request(body), timeout=60) as response:
            response.read(64)

    def overload(self, callers: int) -> list[int]:
        """All at once."""
        with ThreadPoolExecutor(callers) as pool:
            asked = [
                pool.submit(self._ask, [_text(f"Count to {number}.")], max_tokens=12)
                for number in range(callers)
            ]
            return [answer.result() for answer in asked]

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


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture(picture: bytes) -> dict[str, Any]:
    data = base64.b64encode(picture).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
