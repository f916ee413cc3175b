import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import DBAPIError

from serve_app.accounting import audit
from serve_app.accounting.schema import audit_log


async def note(database, number: int) -> None:
    async with database.write() as connection:
        await audit.record(
            connection,
            at_us=number,
            actor="me",
            action="test",
            subject=f"thing {number}",
            detail={"number": number},
        )


async def test_entries_come_newest_first_and_in_pages(database):
    for number in range(5):
        await note(database, number)
    first = await audit.entries(database, limit=2)
    second = await audit.entries(database, before_id=first[-1].id, limit=2)
    rest = await audit.entries(database, before_id=second[-1].id)
    assert [entry.at_us for entry in (*first, *second, *rest)] == [4, 3, 2, 1, 0]
    assert first[0].subject == "thing 4"
    assert first[0].detail == {"number": 4}


async def failing_change(database) -> None:
    async with database.write() as connection:
        await audit.record(connection, at_us=1, actor="me", action="x", subject="y", detail={})
        raise RuntimeError("the change failed")


async def test_an_entry_is_never_there_without_its_change(database):
    with pytest.raises(RuntimeError):
        await failing_change(database)
    assert await audit.entries(database) == ()


async def test_the_log_is_append_only(database):
    await note(database, 1)
    for statement in (update(audit_log).values(actor="you"), delete(audit_log)):
        with pytest.raises(DBAPIError):
            async with database.write() as connection:
                await connection.execute(statement)
    [entry] = await audit.entries(database)
    assert entry.actor == "me"


async def test_a_page_is_bounded(database):
    row = {"at_us": 1, "actor": "me", "action": "x", "subject": "y", "detail": {}}
    async with database.write() as connection:
        await connection.execute(insert(audit_log), [row] * (audit.MAX_ENTRIES + 1))
    assert len(await audit.entries(database, limit=10**9)) == audit.MAX_ENTRIES


def test_a_difference_names_what_changed_only():
    before, after = {"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3, "c": 4}
    assert audit.difference(before, after) == {"b": [2, 3], "c": [None, 4]}
