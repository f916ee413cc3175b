"""The admin API as each role meets it: real keys, a real directory and store, no sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.period import start_of
from serve_app.accounting.price_book import PriceBook
from serve_app.accounting.roles import Role
from serve_app.config import Accounting
from serve_app.gateway.admin.routes import admin_routes
from serve_app.gateway.auth import KeyCheck
from serve_app.gateway.edge import Edge
from serve_app.gateway.error_body import http_error_response
from serve_app.gateway.usage_routes import usage_routes
from serve_app.messages import Pulse
from tests.serve_app.accounting.books import Books, Key

NOW_US = start_of("2026-11-23")
ALERT_HOST = "hooks.example.com"


class Clock:
    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


@dataclass
class Office:
    """The accounts without a ledger at work."""

    database: Database
    clock: Clock
    directory: Directory = field(init=False)
    prices: PriceBook = field(init=False)

    def __post_init__(self) -> None:
        self.directory = Directory(
            self.database, bytes(32), alert_hosts=[ALERT_HOST], clock=self.clock
        )
        self.prices = PriceBook(self.database, clock=self.clock)


class Portal:
    """``portal.admin.get("/admin/teams")``, and so for lead, member, finance and nobody.

    ``team`` is what lead and member belong to, ``key`` the member's key as ``Books`` charge it.
    """

    team = "default/research"
    admin: httpx2.AsyncClient
    lead: httpx2.AsyncClient
    member: httpx2.AsyncClient
    finance: httpx2.AsyncClient
    nobody: httpx2.AsyncClient
    key: Key

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.office = Office(database, self.clock)
        self.books = Books(database)
        self.engines: dict[str, int] = {}
        self.pulses: list[Pulse | None] = []
        self.settings = Accounting(usd_per_hour=Decimal(12))
        self.app = FastAPI(docs_url=None, redoc_url=None)
        keyed = [Depends(KeyCheck(self.office.directory, asks=True))]
        self.app.include_router(
            admin_routes(
                self.office,
                self.settings,
                groups=self._groups,
                engines=self._engines,
                clock=self.clock,
            ),
            dependencies=keyed,
        )
        self.app.include_router(usage_routes(self.office, clock=self.clock), dependencies=keyed)
        self.app.add_exception_handler(HTTPException, _http_error)
        self.app.add_middleware(Edge, untrained=False)

    async def _engines(self) -> dict[str, int]:
        return self.engines

    async def _groups(self) -> list[Pulse | None]:
        return self.pulses

    async def open(self) -> None:
        directory = self.office.directory
        await directory.ensure_default()
        team = await directory.create_team("research", actor="test")
        await directory.create_team("vision", actor="test")
        for role in Role:
            home = self.team if role in (Role.LEAD, Role.MEMBER) else "default/default"
            made = await directory.create_key(home, role.value, role=role, actor="test")
            setattr(self, role.value, self.client(made.secret))
            if role is Role.MEMBER:
                self.key = Key(made.info.id, team.id, team.organisation_id, made.public_id)
        self.nobody = self.client("sk-pixtral-nobody")

    async def close(self) -> None:
        for name in (*Role, "nobody"):
            await getattr(self, name).aclose()

    def client(self, secret: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://gateway",
            headers={"Authorization": f"Bearer {secret}"},
        )

    async def made(self, path: str, body: Any, status: int = 201) -> Any:
        """What the admin is answered to a POST."""
        answer = await self.admin.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def got(self, path: str, **params: Any) -> Any:
        """What the admin is answered to a GET."""
        answer = await self.admin.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_error_response(error, request.url.path)


@pytest.fixture
def store_url(sqlite_url: str) -> str:
    """One store will do, but where a test module asks for both."""
    return sqlite_url


@pytest.fixture
async def portal(database: Database) -> AsyncIterator[Portal]:
    opened = Portal(database)
    await opened.open()
    yield opened
    await opened.close()
