"""Gateways whose directory is inhabited, so that names can clash and keys can lack rights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shards.tokenizer import Tokenizer
from tests.serve_app.gateway.conftest import KEY, MODEL, Gateway, make_config
from tests.serve_app.gateway.store import Store, eventually

CANARY = "canary-in-a-prompt-3f9c"
SCRAPE_TOKEN = "canary-of-the-scraper-8d21"
MAX_BODY_BYTES = 70_000
CHAT: Any = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": CANARY}]}
PRICE = {"model": MODEL, "text_usd": "1", "output_usd": "2"}


class Town:
    """A gateway whose directory is inhabited, so that names can clash; ``second`` shares its
    accounts and does not wait for the answers of the other."""

    def __init__(self, tokenizer: Tokenizer, folder: Path) -> None:
        token_file = folder / "scrape-token"
        token_file.write_text(SCRAPE_TOKEN)
        config = make_config(
            folder,
            gateway={"max_body_bytes": MAX_BODY_BYTES},
            accounting={"replay_wait_s": 0.0, "metrics_token_file": token_file},
        )
        store = Store.on_sqlite(folder)
        self.gateway = Gateway(tokenizer, store, config)
        self.second = Gateway(tokenizer, store, config, self.gateway.tiers)
        self.http = httpx2.Client(
            base_url=self.gateway.endpoint.url,
            headers={"Authorization": f"Bearer {KEY}"},
            verify=False,
            timeout=60,
        )
        self.document = self.http.get("/openapi.json").json()
        self._settle_in()

    def stop(self) -> None:
        self.http.close()
        self.second.stop()
        self.gateway.stop()

    def call(self, method: str, path: str, key: str | None = KEY, **given: Any) -> httpx2.Response:
        """``$name`` in a path is an attribute of this object."""
        for name in ("ended_key", "refunded_line"):
            path = path.replace(f"${name}", str(getattr(self, name, "")))
        headers = {"Authorization": "" if key is None else f"Bearer {key}"}
        return self.http.request(method, path, headers=headers | given.pop("headers", {}), **given)

    def _settle_in(self) -> None:
        made = self._made
        made("/admin/organisations", {"name": "acme"})
        for organisation in ("default", "acme"):
            made("/admin/teams", {"name": "twin", "organisation": organisation})
        key = made("/admin/keys", {"team": "default/twin", "name": "ended"})
        self.ended_key = key["public_id"]
        made(f"/admin/keys/{self.ended_key}/revoke", None)
        scope = {"team": "default/default"}
        # What asks the usage of a key may not call anything else, and the other way round.
        self.usage_only = made("/admin/keys", {**scope, "name": "u", "endpoints": ["usage"]})
        self.chat_only = made("/admin/keys", {**scope, "name": "c", "endpoints": ["chat"]})
        broke = {**scope, "name": "broke", "limits": {"budget_usd": "0"}}
        self.broke = made("/admin/keys", broke)["secret"]
        effective = "2099-01-01T00:00:00Z"
        self.price = {**PRICE, "effective_at": effective}
        made("/admin/prices", self.price)
        made("/v1/chat/completions", CHAT)
        eventually(lambda: bool(self.gateway.store.lines()))
        self.refunded_line = self.gateway.store.lines()[0]["id"]
        made("/admin/adjustments", {"line_id": self.refunded_line, "reason": "test"})

    def _made(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()


@pytest.fixture(scope="module")
def town(
    tokenizer: Tokenizer, founded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town") / "accounts"
    town = Town(tokenizer, Path(shutil.copytree(founded, folder)))
    yield town
    town.stop()
