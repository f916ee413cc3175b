"""Changes of keys: each a part of one audited transaction.

    create ──► active ──► revoked             at once, for good
                  │
               rotate ──► expires after the overlap, beside its successor

The successor is an account of its own under the same team, so the same team is billed. It takes
over the name, role, scope, lifetime and a copy of the limits; what the old key used stays with the
old key, which is renamed ``name~public id``. A key's own budget therefore starts anew with its
successor; the team's and the organisation's bind both together.
"""

from __future__ import annotations

import hmac
import secrets

from serve_app.accounting import account_records, key_records
from serve_app.accounting.account_records import Team
from serve_app.accounting.audit import Change
from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.key_records import KeyInfo, KeyTerms, NewKey
from serve_app.accounting.keys import KeyDigester, new_token
from serve_app.accounting.roles import Role
from serve_app.errors import Conflict, InvalidRequest

ANONYMOUS = "anonymous"  # no token has this public id: see keys.py
MAX_OVERLAP_S = 30 * 86_400


async def create(
    change: Change, digester: KeyDigester, team: Team, name: str, terms: KeyTerms
) -> NewKey:
    """Raises Conflict (the name is taken) or InvalidRequest."""
    if terms.expires_us is not None and terms.expires_us <= change.at_us:
        raise InvalidRequest("expires_us: must lie in the future", param="expires_us")
    token = new_token()
    info = await _add(change, digester, token, team, name, terms)
    await change.record("key.create", info.subject, _shown(info, terms))
    return NewKey(token, info)


async def rotate(change: Change, digester: KeyDigester, public_id: str, overlap_s: int) -> NewKey:
    """Raises NotFound, Conflict (ended or rotated already) or InvalidRequest."""
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise InvalidRequest(f"overlap_s: 0 to {MAX_OVERLAP_S} seconds", param="overlap_s")
    old = await key_records.lock_key(change.connection, public_id)
    await _check_rotatable(change, old)
    team = await account_records.team(change.connection, f"{old.organisation}/{old.team}")
    ends_us = change.at_us + overlap_s * MICROSECONDS
    expires_us = None
    if old.expires_us is not None:
        expires_us = change.at_us + old.expires_us - old.created_us
        ends_us = min(ends_us, old.expires_us)
    terms = KeyTerms(old.role, old.models, old.endpoints, expires_us, old.limits)
    token = new_token()
    await key_records.give_up_name(change.connection, old)
    await key_records.expire(change.connection, old, ends_us)
    info = await _add(change, digester, token, team, old.name, terms, replaces_id=old.id)
    detail = {"successor": info.public_id, "expires_us": [old.expires_us, ends_us]}
    await change.record("key.rotate", old.subject, detail)
    await change.record("key.create", info.subject, _shown(info, terms))
    return NewKey(token, info)


async def revoke(change: Change, public_id: str) -> KeyInfo:
    """Raises NotFound."""
    key = await key_records.lock_key(change.connection, public_id)
    if key.revoked_us is not None:
        return key
    await key_records.revoke(change.connection, key, change.at_us)
    await change.record("key.revoke", key.subject, {"name": key.name, "team": _team(key)})
    return await key_records.find_key(change.connection, public_id)


async def import_token(
    change: Change, digester: KeyDigester, token: str, team: Team, name: str, role: Role
) -> KeyInfo:
    """Raises Conflict (it was ended once) or InvalidRequest."""
    public_id = digester.public_id(token)
    if public_id is None:
        raise InvalidRequest("token: can be no key (sk-pixtral-…)", param="token")
    await account_records.lock_account(change.connection, team.id)
    stored = await key_records.digest_of(change.connection, public_id)
    if stored is not None:
        return await _imported_already(change, public_id, stored, digester.digest(token))
    previous = await key_records.key_named(change.connection, team.id, name)
    if previous is not None:
        await revoke(change, previous.public_id)
        await key_records.give_up_name(change.connection, previous)
    terms = KeyTerms(role)
    replaces_id = None if previous is None else previous.id
    info = await _add(change, digester, token, team, name, terms, replaces_id=replaces_id)
    await change.record("key.import", info.subject, _shown(info, terms))
    return info


async def ensure_anonymous(change: Change, team: Team) -> None:
    """A key account of a team that nobody can present a key for."""
    await account_records.lock_account(change.connection, team.id)
    if await key_records.key_named(change.connection, team.id, ANONYMOUS) is not None:
        return
    info = await key_records.add_key(
        change.connection,
        team.id,
        ANONYMOUS,
        KeyTerms(),
        public_id=ANONYMOUS,
        digest=secrets.token_bytes(32),
        now_us=change.at_us,
    )
    await change.record("key.create", info.subject, _shown(info, KeyTerms()))


async def _add(
    change: Change,
    digester: KeyDigester,
    token: str,
    team: Team,
    name: str,
    terms: KeyTerms,
    replaces_id: int | None = None,
) -> KeyInfo:
    return await key_records.add_key(
        change.connection,
        team.id,
        name,
        terms,
        public_id=digester.public_id(token) or "",
        digest=digester.digest(token),
        now_us=change.at_us,
        replaces_id=replaces_id,
    )


async def _check_rotatable(change: Change, key: KeyInfo) -> None:
    state = key.state(change.at_us)
    if state != "active":
        raise Conflict(f"key {key.public_id} is {state}; create a new one")
    if key.public_id == ANONYMOUS:
        raise Conflict("the anonymous key has no secret")
    successor = await key_records.successor(change.connection, key.id)
    if successor is not None:
        raise Conflict(f"key {key.public_id} was replaced already, by {successor}; rotate that one")


async def _imported_already(
    change: Change, public_id: str, stored: bytes, digest: bytes
) -> KeyInfo:
    key = await key_records.find_key(change.connection, public_id)
    state = key.state(change.at_us)
    if state != "active":
        raise Conflict(
            f"key {public_id} is {state}: remove it from its file to have a new one made"
        )
    if not hmac.compare_digest(stored, digest):
        raise Conflict(f"there is another key with the public id {public_id}")
    return key


def _shown(key: KeyInfo, terms: KeyTerms) -> dict[str, object]:
    replaced = {} if key.replaces is None else {"replaces": key.replaces}
    return {"name": key.name, "team": _team(key), **replaced, **terms.shown()}


def _team(key: KeyInfo) -> str:
    return f"{key.organisation}/{key.team}"
