"""The end of a hold: its answer kept for repeats, the hold settled, and both made to happen."""

from __future__ import annotations

import asyncio

from serve_app.accounting.hold import Hold, Settlement
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.replays import Claim, StoredAnswer
from serve_app.accounting.tokens import Tokens
from serve_app.errors import LedgerUnavailable
from serve_app.gateway.detached import detached
from serve_app.log import Logger

# An answer waits so long for its settlement to be durable; longer only in a database's outage.
COMMIT_WAIT_S = 1.0
_STORE_RETRY_S = 0.5


class Reckoning:
    """``claim`` where the request came with an Idempotency-Key."""

    def __init__(self, hold: Hold, ledger: Ledger, claim: Claim | None, log: Logger) -> None:
        self.hold = hold
        self._ledger = ledger
        self._claim = claim
        self._log = log

    async def begun(
        self, settlement: Settlement, answer: StoredAnswer | None = None
    ) -> asyncio.Task[None]:
        """The task that ends the hold, once it is done or has taken ``COMMIT_WAIT_S``."""
        task = detached(self.done(settlement, answer))
        await asyncio.wait({task}, timeout=COMMIT_WAIT_S)
        return task

    async def done(self, settlement: Settlement, answer: StoredAnswer | None = None) -> None:
        """Stored first, then settled: a crash in between gives an answer away, but bills none
        twice. Both are tried until they are done."""
        try:
            if self._claim is not None and answer is not None:
                await self._store(self._claim, answer)
            await self._ledger.settle(self.hold, settlement)
        except Exception as error:
            self.leave_to_sweeper(error)
            return
        spent = sum((charge.tokens for charge in settlement.charges), Tokens())
        self._log.info(
            "request settled",
            outcome=settlement.outcome.value,
            prompt_tokens=spent.prompt,
            completion_tokens=spent.output,
        )

    def leave_to_sweeper(self, error: BaseException) -> None:
        """What is known here does not suffice; the engine's journal does."""
        self._log.warning("left to the sweeper", error=error)
        self._ledger.release(self.hold)

    async def _store(self, claim: Claim, answer: StoredAnswer) -> None:
        while True:
            try:
                await claim.store(answer)
                return
            except LedgerUnavailable:
                await asyncio.sleep(_STORE_RETRY_S)
