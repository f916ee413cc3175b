"""The grammars of one group's answers, compiled beside the engine's thread.

What is known is there at once. Callers' schemas, which may take long, wait for each other and for
nobody else; all other rules take a tenth of a second at most (128 tools, 131,072 tokens).

xgrammar is imported, with most of a second and 50 MB, when the first answer needs it: never in the
replica, and not on ranks that draw what rank 0 allows.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from serve_app.config import GrammarCosts
from serve_app.decoder.turns import Turns
from shards.request import GrammarSpec

if TYPE_CHECKING:
    from shards.constraint import Grammar
    from shards.detokenizer import Vocabulary
    from shards.grammar import AnswerGrammar, GrammarCompiler

# Of one team. More than one answer's worth each: a client may open as many at once.
_WAITING_LIMIT = 32


class Grammars:
    def __init__(self, vocabulary: Vocabulary, costs: GrammarCosts) -> None:
        self._vocabulary = vocabulary
        self._costs = costs
        self._slow = ThreadPoolExecutor(1, thread_name_prefix="schemas")
        # One compiles, the other reads what answers continue.
        self._quick = ThreadPoolExecutor(2, thread_name_prefix="grammars")
        self._schemas: Turns[GrammarSpec, AnswerGrammar] = self._turns(self._slow)
        self._others: Turns[GrammarSpec, AnswerGrammar] = self._turns(self._quick)
        self._compiler: GrammarCompiler | None = None
        self._starting = threading.Lock()

    async def compiled(self, spec: GrammarSpec, team: str) -> Grammar:
        """
        Raises:
            RequestError: what is asked for cannot be promised (field named).
            QueueFullError: others' schemas are being compiled.
        """
        known = None if self._compiler is None else self._compiler.known(spec)
        if known is None:
            turns = self._schemas if spec.has_schema else self._others
            return await turns.result(spec, team)
        if not spec.prefix:
            return known
        return await asyncio.get_running_loop().run_in_executor(
            self._quick, known.continuing, spec.prefix
        )

    def close(self) -> None:
        """End what is being compiled."""
        for pool in (self._slow, self._quick):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._compiler is not None:
            self._compiler.close()

    def _turns(self, pool: ThreadPoolExecutor) -> Turns[GrammarSpec, AnswerGrammar]:
        return Turns(
            pool,
            lambda spec: self._ready().compile(spec),
            patience_s=self._costs.compile_s,
            team_limit=_WAITING_LIMIT,
        )

    def _ready(self) -> GrammarCompiler:
        with self._starting:
            if self._compiler is None:
                from shards.grammar import GrammarCompiler, GrammarLimits

                limits = GrammarLimits(**self._costs.model_dump())
                self._compiler = GrammarCompiler(self._vocabulary, limits)
            return self._compiler
