"""A folder served as an S3 bucket on loopback, as far as reading goes: HEAD, and GET with a range.

It counts what is asked of it, and can stop answering in the middle.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "models"


class Bucket:
    """``reads``: names and first bytes, in the order asked.

    ``hold_after`` N: the first N reads of weights are answered, the rest wait for ``release``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads: list[tuple[str, int]] = []
        self.hold_after: int | None = None
        self.held = threading.Event()
        self.release = threading.Event()
        self._lock = threading.Lock()

    @property
    def weight_reads(self) -> list[tuple[str, int]]:
        return [each for each in self.reads if each[0].endswith(".safetensors")]

    @contextmanager
    def served(self) -> Iterator[dict[str, str]]:
        """Yields the environment that makes s3:// mean this."""
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                file = bucket.folder / self.path.removeprefix(f"/{BUCKET}/").partition("?")[0]
                if not file.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                size = file.stat().st_size
                ranged = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                first, last = (int(ranged[1]), int(ranged[2])) if ranged else (0, size - 1)
                last = min(last, size - 1)
                if with_body:
                    bucket._asked(file.name, first)
                self.send_response(206 if ranged else 200)
                self.send_header("Content-Length", str(last - first + 1))
                if ranged:
                    self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
                self.send_header("Last-Modified", formatdate(file.stat().st_mtime, usegmt=True))
                self.send_header("ETag", '"one"')
                self.end_headers()
                if with_body:
                    with file.open("rb") as stream:
                        stream.seek(first)
                        self.wfile.write(stream.read(last - first + 1))

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "anybody",
                "AWS_SECRET_ACCESS_KEY": "anything",
            }
        finally:
            self.release.set()
            server.shutdown()
            server.server_close()

    def _asked(self, name: str, first: int) -> None:
        with self._lock:
            self.reads.append((name, first))
            held = self.hold_after is not None and len(self.weight_reads) > self.hold_after
        if held and name.endswith(".safetensors"):
            self.held.set()
            self.release.wait(120)
