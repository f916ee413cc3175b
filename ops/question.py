"""`pixtral ask`: one question over the REST API, the answer as it is generated.

Knows the API as any client does; nothing of the tiers behind it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.problem import Problem

if TYPE_CHECKING:
    import aiohttp

# What a file begins with (any four bytes of length inside WebP's) -> its media type.
_SIGNATURES = {
    rb"\xff\xd8\xff": "image/jpeg",
    rb"\x89PNG\r\n\x1a\n": "image/png",
    rb"GIF8[79]a": "image/gif",
    rb"(?s:RIFF....WEBP)": "image/webp",
}
_DOCUMENT = {rb"%PDF-": "application/pdf"}
# A stream sends a ping every 15 s; silence for longer means that nobody is there.
_SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Question:
    """``frames`` are of each picture, ``pages`` (as ``1-3,7``) of each document, ``detail`` of
    both."""

    text: str
    images: tuple[Path, ...] = ()
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    documents: tuple[Path, ...] = ()
    pages: str | None = None
    frames: int | None = None
    detail: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of /v1/chat/completions, pictures and documents before the text.

        Raises:
            Problem: a file that cannot be read or is no picture or document.
        """
        frames = None if self.frames is None else {"count": self.frames}
        content: list[dict[str, Any]] = [
            {
                "type": "image_url",
                "image_url": {"url": data_url(image), **_said(detail=self.detail, frames=frames)},
            }
            for image in self.images
        ]
        content += [
            {
                "type": "document_url",
                "document_url": document_url(document),
                **_said(pages=self.pages, detail=self.detail),
            }
            for document in self.documents
        ]
        content.append({"type": "text", "text": self.text})
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "stream": True,
            "stream_options": {"include_usage": True},
            **_said(max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """``cost_*`` are decimal strings in US dollars, as the API reports them."""

    text: str
    model: str
    finish_reason: str
    text_tokens: int
    image_tokens: int
    output_tokens: int
    cost_input: str
    cost_output: str
    cost_total: str
    first_token_s: float
    seconds: float

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def accounts(self) -> str:
        """Tokens, money and time, in two lines."""
        return (
            f"{self.text_tokens} text + {self.image_tokens} image tokens in,"
            f" {self.output_tokens} out ({self.finish_reason});"
            f" first token after {self.first_token_s:.2f} s, {self.seconds:.2f} s in all\n"
            f"cost ${self.cost_total} (input ${self.cost_input}, output ${self.cost_output})"
        )


async def ask(
    question: Question, base_url: str, api_key: str, show: Callable[[str], None]
) -> Answer:
    """Ask; ``show`` is given the text of the answer piece by piece.

    Raises:
        Problem: nobody answers, the API refuses, or the answer broke off.
    """
    body = question.body()
    started = time.monotonic()
    first_token_s: float | None = None
    text, finish_reason, usage, model = "", "", None, question.model
    async for chunk in _chunks(f"{base_url}/chat/completions", api_key, body):
        model, usage = chunk.get("model", model), chunk.get("usage") or usage
        for choice in chunk["choices"]:
            if piece := choice["delta"].get("content"):
                first_token_s = first_token_s or time.monotonic() - started
                text += piece
                show(piece)
            finish_reason = choice.get("finish_reason") or finish_reason
    seconds = time.monotonic() - started
    if usage is None or not finish_reason:
        raise Problem("the answer broke off before its end")
    return Answer(
        text=text,
        model=model,
        finish_reason=finish_reason,
        text_tokens=usage["prompt_tokens_details"]["text_tokens"],
        image_tokens=usage["prompt_tokens_details"]["image_tokens"],
        output_tokens=usage["completion_tokens"],
        cost_input=usage["cost"]["input"],
        cost_output=usage["cost"]["output"],
        cost_total=usage["cost"]["total"],
        first_token_s=seconds if first_token_s is None else first_token_s,
        seconds=seconds,
    )


def data_url(image: Path) -> str:
    """The picture as a ``data:`` URL.

    Raises:
        Problem: no such file, or not a JPEG, PNG, WebP or GIF.
    """
    return _data_url(image, "picture", _SIGNATURES, "JPEG, PNG, WebP or GIF picture")


def document_url(document: Path) -> str:
    """The document as a ``data:`` URL.

    Raises:
        Problem: no such file, or not a PDF.
    """
    return _data_url(document, "document", _DOCUMENT, "PDF document")


def _data_url(file: Path, noun: str, signatures: Mapping[bytes, str], known: str) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Problem(f"the {noun} {file} cannot be read: {error.strerror}") from error
    for signature, media_type in signatures.items():
        if re.match(signature, content):
            return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    raise Problem(f"{file} is not a {known}")


def _said(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _chunks(url: str, api_key: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    # Here, as every command would wait for a quarter of a second longer.
    import aiohttp

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_SILENCE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.post(url, json=body) as response,
        ):
            if response.status != 200:
                raise Problem(refusal(response.status, await response.text()))
            async for event in _events(response.content):
                if event == "[DONE]":
                    return
                chunk: dict[str, Any] = json.loads(event)
                if "error" in chunk:
                    raise Problem(f"the answer broke off: {chunk['error']['message']}")
                yield chunk
    except aiohttp.ClientConnectorError as error:
        raise Problem(f"nobody answers at {url}; start the system with `pixtral up`") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Problem(f"the connection broke: {error or 'no answer in time'}") from error


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The ``data:`` of each server-sent event; ours are of one line, comments are skipped."""
    # Not by line: aiohttp's readline refuses lines beyond its buffer.
    rest = b""
    async for block in content.iter_any():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip().decode()


def refusal(status: int, body: str) -> str:
    try:
        error = json.loads(body)["error"]
        return f"{error['message']} ({error['code'] or error['type']}, HTTP {status})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body.strip()[:200] or 'no reason given'}"


def names(models: Any) -> Sequence[str]:
    """Served names in an answer of /v1/models."""
    return [model["id"] for model in models["data"]]
