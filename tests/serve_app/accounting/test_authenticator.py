"""Who is let in, on both stores, and how soon a change of a key holds everywhere."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting import authenticator
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.keys import _checksum, new_token
from serve_app.accounting.schema import accounts
from serve_app.errors import LedgerUnavailable, Unauthorized
from tests.serve_app.accounting.watch import SECOND_US, Watch

PEPPER = bytes(range(32))
IMPORTED = "sk-pixtral-" + "aB3_-xYz" * 4


class Store(Database):
    """A real one that counts reads, can be slow, and can be down."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.reads = 0
        self.is_down = False
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self.inner.write()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self.reads += 1
        await self.open_gate.wait()
        if self.is_down:
            raise LedgerUnavailable("down")
        async with self.inner.read() as connection:
            yield connection


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def directory(store: Store, watch: Watch) -> Directory:
    made = Directory(store, PEPPER, clock=watch)
    await made.ensure_default()
    return made


@pytest.fixture
async def token(directory: Directory) -> str:
    return (await directory.create_key("default", "a", actor="me")).secret


async def refusal(directory: Directory, token: str) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        await directory.principal(token)
    return caught.value


async def is_let_in(directory: Directory, token: str) -> bool:
    try:
        await directory.principal(token)
    except Unauthorized:
        return False
    return True


async def test_whatever_is_wrong_with_a_key_is_said_in_the_same_words(directory, token, watch):
    revoked = await directory.create_key("default", "b", actor="me")
    await directory.revoke_key(revoked.public_id, actor="me")
    expired = await directory.create_key("default", "c", expires_us=watch() + 1, actor="me")
    watch.turn(1)
    guessed = token[:24] + "0" * 32
    tokens = {
        "missing": "",
        "mistyped": token[:-1] + ("0" if token[-1] != "0" else "1"),
        "unknown": new_token(),
        "unknown, made outside": IMPORTED,
        "wrong secret": guessed + _checksum(guessed),
        "revoked": revoked.secret,
        "expired": expired.secret,
    }
    refusals = {kind: await refusal(directory, each) for kind, each in tokens.items()}
    assert len({(str(each), each.code, each.status, each.param) for each in refusals.values()}) == 1
    assert refusals["unknown"].status == 401
    assert await directory.principal(token)


async def test_a_mistyped_key_costs_no_query(directory, store, token):
    reads = store.reads
    for place in range(len("sk-pixtral-"), len(token)):
        letter = "Z" if token[place] != "Z" else "Y"
        await refusal(directory, token[:place] + letter + token[place + 1 :])
    await refusal(directory, token[:-30])
    assert store.reads == reads + 1  # the shortened one: it could have been made outside


async def test_a_key_is_asked_for_once_a_second_however_many_present_it(
    directory, store, token, watch
):
    reads = store.reads
    first = await asyncio.gather(*(directory.principal(token) for _ in range(50)))
    assert len(set(first)) == 1
    assert store.reads == reads + 1
    watch.turn(0.999_999)
    await directory.principal(token)
    assert store.reads == reads + 1
    watch.turn(0.000_001)
    await directory.principal(token)
    assert store.reads == reads + 2


async def test_who_goes_away_while_asking_leaves_the_answer_to_the_others(directory, store, token):
    store.open_gate.clear()
    reads = store.reads
    impatient, patient = (asyncio.create_task(directory.principal(token)) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.sleep(0)
    store.open_gate.set()
    assert (await patient).key_name == "a"
    assert impatient.cancelled()
    assert store.reads == reads + 1


async def test_who_comes_a_second_later_does_not_wait_for_an_old_answer(
    directory, store, token, watch
):
    store.open_gate.clear()
    reads = store.reads
    early = asyncio.create_task(directory.principal(token))
    await asyncio.sleep(0)
    watch.turn(1)
    late = asyncio.create_task(directory.principal(token))
    await asyncio.sleep(0)
    store.open_gate.set()
    assert await early == await late
    assert store.reads == reads + 2


@pytest.mark.parametrize("change", ["revoke", "rotate"])
async def test_a_change_holds_on_every_replica_within_two_seconds(
    database, directory, token, watch, change
):
    replicas = [Directory(database, PEPPER, clock=watch) for _ in range(3)]
    for replica in replicas:
        await replica.principal(token)
    watch.turn(0.5)
    public_id = (await directory.keys())[0].public_id
    if change == "revoke":
        await directory.revoke_key(public_id, actor="me")
    else:
        await directory.rotate_key(public_id, 0, actor="me")
    watch.turn(0.5)
    for replica in replicas:
        await refusal(replica, token)


async def test_a_revocation_holds_on_another_replica_within_two_real_seconds(database):
    here, there = Directory(database, PEPPER), Directory(database, PEPPER)
    await here.ensure_default()
    key = await here.create_key("default", "a", actor="me")
    await there.principal(key.secret)
    await here.revoke_key(key.public_id, actor="me")
    revoked_at = time.monotonic()
    while await is_let_in(there, key.secret):
        assert time.monotonic() - revoked_at < 2
        await asyncio.sleep(0.01)


async def test_a_new_key_is_known_a_second_after_it_was_unknown(directory, watch):
    await refusal(directory, IMPORTED)
    await directory.import_key(IMPORTED, name="a")
    watch.turn(1)
    assert (await directory.principal(IMPORTED)).key_name == "a"


async def test_a_key_expires_at_its_instant_even_where_it_is_remembered(directory, watch):
    key = await directory.create_key(
        "default", "b", expires_us=watch() + SECOND_US // 2, actor="me"
    )
    watch.turn(0.499_999)
    await directory.principal(key.secret)
    watch.turn(0.000_001)
    await refusal(directory, key.secret)


async def test_a_clock_set_back_makes_nothing_last_longer(directory, token, watch):
    await directory.principal(token)
    await directory.revoke_key((await directory.keys())[0].public_id, actor="me")
    watch.turn(-3_600)
    await refusal(directory, token)


@pytest.mark.parametrize("scope", ["key", "team", "organisation"])
async def test_a_closed_account_closes_the_keys_below_it(directory, database, token, scope):
    closing = update(accounts).where(accounts.c.scope == scope).values(active=False)
    async with database.write() as connection:
        await connection.execute(closing)
    await refusal(directory, token)


async def test_litellm_33923_nobody_is_let_in_while_the_store_is_down(
    directory, store, token, watch
):
    assert await directory.principal(token)
    store.is_down = True
    watch.turn(1)
    for each in (token, new_token(), IMPORTED):
        with pytest.raises(LedgerUnavailable):
            await directory.principal(each)
    store.is_down = False
    assert await directory.principal(token)


async def test_a_store_that_refuses_connections_lets_nobody_in():
    database = Database.open("postgresql://nobody@127.0.0.1:1/none", timeout_s=1)
    with pytest.raises(LedgerUnavailable):
        await Directory(database, PEPPER).principal(new_token())
    await database.close()


async def test_a_flood_of_unknown_keys_takes_bounded_room_and_pushes_no_good_one_out(
    directory, store, token, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(authenticator, "MAX_REMEMBERED", 3)
    await directory.principal(token)
    flood = [new_token() for _ in range(8)]
    for unknown in flood:
        await refusal(directory, unknown)
    reads = store.reads
    await directory.principal(token)
    await refusal(directory, flood[-1])
    assert store.reads == reads  # both remembered
    await refusal(directory, flood[0])
    assert store.reads == reads + 1  # forgotten long ago


async def test_good_keys_are_remembered_up_to_a_bound(
    directory, store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(authenticator, "MAX_REMEMBERED", 2)
    made = [await directory.create_key("default", f"k{n}", actor="me") for n in range(3)]
    for key in made:
        await directory.principal(key.secret)
    reads = store.reads
    await directory.principal(made[0].secret)
    assert store.reads == reads + 1


async def test_a_revoked_key_is_remembered_as_refused(directory, store, token, watch):
    await directory.principal(token)
    await directory.revoke_key((await directory.keys())[0].public_id, actor="me")
    watch.turn(1)
    await refusal(directory, token)
    reads = store.reads
    await refusal(directory, token)
    assert store.reads == reads
