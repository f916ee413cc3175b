"""Answers of requests with an Idempotency-Key, kept encrypted so that a repeat is not run again.

A key belongs to a team. One conditional insert decides who runs it, among all gateways: the row of
a claim whose gateway died, or of an answer whose time is over, is free to be taken again.

    (none) ─► running ─┬─► done      the answer can be had again until it expires
                       └─► (none)    nothing came of it: a retry runs anew
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from serve_app.accounting.calendar import MICROSECONDS, Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.schema import replays
from serve_app.accounting.upsert import insert
from serve_app.config import Accounting
from serve_app.errors import InFlight, LedgerUnavailable, ReusedKey

_logger = logging.getLogger(__name__)
_KEY_BYTES = 32
_NONCE_BYTES = 12
_POLL_S = 0.1
_RUNNING, _DONE = "running", "done"


@dataclass(frozen=True, slots=True)
class Repeat:
    """What makes two requests one: the team, its key and the exact body, both digested."""

    team_id: int
    key: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A whole answer, as it was sent."""

    media_type: str
    headers: Mapping[str, str]
    body: bytes


class Replays:
    """The keyed requests of one gateway.

    Args:
        pepper: without it digests tell nothing and stored answers cannot be read.
    """

    def __init__(
        self, database: Database, pepper: bytes, settings: Accounting, *, clock: Clock = now_us
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._digest_key = _derived(pepper, b"pixtral replays: digests")
        self._safe = _Safe(_derived(pepper, b"pixtral replays: answers"))
        self._claimed: set[str] = set()

    def repeat(self, team_id: int, key: str, path: str, body: bytes) -> Repeat:
        return Repeat(
            team_id, self._digest(key.encode()), self._digest(path.encode() + b"\0" + body)
        )

    def claim(self, repeat: Repeat, request_id: str) -> Claim:
        """To be entered; nothing is claimed before ``obtain``."""
        return Claim(self, repeat, request_id)

    async def keep_alive(self) -> None:
        """Renew this gateway's claims until cancelled."""
        while True:
            await asyncio.sleep(self._settings.hold_lease_s / 3)
            try:
                await self.renew()
            except LedgerUnavailable as error:
                _logger.warning("claims of Idempotency-Keys are not renewed: %s", error.message)

    async def renew(self) -> None:
        """Raises LedgerUnavailable."""
        if not self._claimed:
            return
        mine = replays.c.request_id.in_(self._claimed)
        async with self._database.write() as connection:
            await connection.execute(
                update(replays)
                .where(mine, replays.c.state == _RUNNING)
                .values(lease_until_us=self._after(self._settings.hold_lease_s))
            )

    async def remove_expired(self) -> None:
        """A chore: one gateway does it for all (see ``sweeper.py``). Raises LedgerUnavailable."""
        async with self._database.write() as connection:
            await connection.execute(delete(replays).where(replays.c.expires_us <= self._clock()))

    async def _take(self, repeat: Repeat, request_id: str) -> bool:
        """Insert the claim, or put it in place of a row that is over; whether that was done."""
        claim = {
            "team_id": repeat.team_id,
            "key_digest": repeat.key,
            "body_digest": repeat.body,
            "request_id": request_id,
            "state": _RUNNING,
            "lease_until_us": self._after(self._settings.hold_lease_s),
            "answer": None,
            "created_us": self._clock(),
            "expires_us": self._after(self._settings.replay_keep_s),
        }
        over = or_(
            replays.c.expires_us <= self._clock(),
            and_(replays.c.state == _RUNNING, replays.c.lease_until_us <= self._clock()),
        )
        async with self._database.write() as connection:
            taken = await connection.execute(
                insert(connection, replays)
                .values(claim)
                .on_conflict_do_update(
                    index_elements=["team_id", "key_digest"], set_=claim, where=over
                )
                .returning(replays.c.request_id)
            )
            return taken.first() is not None

    async def _stored(self, repeat: Repeat) -> StoredAnswer | None:
        """None while another gateway runs it. Raises ReusedKey."""
        query = select(replays.c.body_digest, replays.c.state, replays.c.answer)
        async with self._database.read() as connection:
            row = (await connection.execute(query.where(*_is(repeat)))).first()
        if row is None:
            return None
        if row.body_digest != repeat.body:
            raise ReusedKey(
                "this Idempotency-Key was sent with another body before", param="Idempotency-Key"
            )
        return self._safe.open(repeat, row.answer) if row.state == _DONE else None

    async def _store(self, repeat: Repeat, request_id: str, answer: StoredAnswer) -> None:
        done = {
            "state": _DONE,
            "answer": self._safe.seal(repeat, answer),
            "expires_us": self._after(self._settings.replay_keep_s),
        }
        async with self._database.write() as connection:
            await connection.execute(
                update(replays).where(*_runs(repeat, request_id)).values(**done)
            )

    async def _free(self, repeat: Repeat, request_id: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(replays).where(*_runs(repeat, request_id)))

    def _after(self, seconds: float) -> int:
        return self._clock() + round(seconds * MICROSECONDS)

    def _digest(self, value: bytes) -> bytes:
        return hmac.digest(self._digest_key, value, "sha256")


class Claim:
    """The wish to run a keyed request. Left without a stored answer, a retry may run it anew."""

    def __init__(self, replays: Replays, repeat: Repeat, request_id: str) -> None:
        self._replays = replays
        self._repeat = repeat
        self._request_id = request_id

    async def __aenter__(self) -> Claim:
        return self

    async def obtain(self) -> StoredAnswer | None:
        """The answer if there is one; None says that it is this claim's to make.

        Raises:
            ReusedKey: the key was sent with another body before.
            InFlight: another gateway took longer than ``replay_wait_s`` over the answer.
            LedgerUnavailable: nobody can tell.
        """
        owner = self._replays
        deadline = time.monotonic() + owner._settings.replay_wait_s
        # Noted first: a claim that was cut short is freed too.
        owner._claimed.add(self._request_id)
        while not await owner._take(self._repeat, self._request_id):
            stored = await owner._stored(self._repeat)
            if stored is not None:
                owner._claimed.discard(self._request_id)
                return stored
            if time.monotonic() >= deadline:
                raise InFlight(
                    "a request with this Idempotency-Key is still being answered",
                    param="Idempotency-Key",
                )
            await asyncio.sleep(_POLL_S)
        return None

    async def store(self, answer: StoredAnswer) -> None:
        """Keep the answer for repeats. Raises LedgerUnavailable; may be tried again."""
        await self._replays._store(self._repeat, self._request_id, answer)
        self._replays._claimed.discard(self._request_id)

    async def __aexit__(self, *_: object) -> None:
        owner = self._replays
        if self._request_id in owner._claimed:
            owner._claimed.discard(self._request_id)
            try:
                await owner._free(self._repeat, self._request_id)
            except LedgerUnavailable as error:
                _logger.warning("a claim ends only with its lease: %s", error.message)


class _Safe:
    """Encrypts answers; each opens only for the team and key that it was sealed for."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, repeat: Repeat, answer: StoredAnswer) -> bytes:
        head = json.dumps({"media_type": answer.media_type, "headers": dict(answer.headers)})
        nonce = os.urandom(_NONCE_BYTES)
        plain = head.encode() + b"\n" + answer.body
        return nonce + self._cipher.encrypt(nonce, plain, _whose(repeat))

    def open(self, repeat: Repeat, sealed: bytes) -> StoredAnswer:
        """Raises InvalidTag: tampered with, or sealed under another pepper."""
        nonce, secret = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        head, _, body = self._cipher.decrypt(nonce, secret, _whose(repeat)).partition(b"\n")
        return StoredAnswer(**json.loads(head), body=body)


def _derived(pepper: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=purpose).derive(pepper)


def _whose(repeat: Repeat) -> bytes:
    return b"%d:" % repeat.team_id + repeat.key


def _is(repeat: Repeat) -> tuple[ColumnElement[bool], ...]:
    return (replays.c.team_id == repeat.team_id, replays.c.key_digest == repeat.key)


def _runs(repeat: Repeat, request_id: str) -> tuple[ColumnElement[bool], ...]:
    """A claim that lapsed may be another gateway's by now."""
    return (
        *_is(repeat),
        replays.c.request_id == request_id,
        replays.c.state == _RUNNING,
    )
