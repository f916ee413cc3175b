"""A lease: one gateway at a time does what is done once for all of them.

It is kept in the database, taken and renewed by one conditional statement, and runs out by itself
within seconds of its holder's death. Clocks of gateways that differ by more than its length let
two hold it at once, so what it guards must bear that: it saves work, it is no lock.
"""

from __future__ import annotations

from sqlalchemy import or_, update

from serve_app.accounting.calendar import MICROSECONDS, Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.schema import leases
from serve_app.accounting.upsert import insert

LEASE_S = 6


class Lease:
    """``owner`` tells gateways apart; ``lease_s`` is how long a dead one blocks the others."""

    def __init__(
        self,
        database: Database,
        name: str,
        owner: str,
        *,
        lease_s: float = LEASE_S,
        clock: Clock = now_us,
    ) -> None:
        self._database = database
        self._name = name
        self._owner = owner
        self._length_us = round(lease_s * MICROSECONDS)
        self._clock = clock
        self._until_us = 0

    async def take(self) -> bool:
        """Whether it is ours now; renewed only in its second half, to spare the database.

        Raises:
            LedgerUnavailable
        """
        now_us = self._clock()
        if self._until_us - now_us > self._length_us // 2:
            return True
        until_us = now_us + self._length_us
        row = {"name": self._name, "owner": self._owner, "until_us": until_us}
        free = or_(leases.c.owner == self._owner, leases.c.until_us <= now_us)
        async with self._database.write() as connection:
            statement = insert(connection, leases).values(row)
            taken = await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["name"], set_=row, where=free
                ).returning(leases.c.owner)
            )
            ours = taken.first() is not None
        self._until_us = until_us if ours else 0
        return ours

    async def give_back(self) -> None:
        """Let another gateway have it at once; nothing if it is not ours."""
        self._until_us = 0
        statement = (
            update(leases)
            .where(leases.c.name == self._name, leases.c.owner == self._owner)
            .values(until_us=0)
        )
        async with self._database.write() as connection:
            await connection.execute(statement)
