"""The grammars of one group's answers, compiled beside the engine's thread.

xgrammar is imported, with most of a second and 50 MB, when the first answer needs it: never in the
replica, and not on ranks that draw what rank 0 allows.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shards.request import GrammarSpec

if TYPE_CHECKING:
    from shards.constraint import Grammar
    from shards.detokenizer import Vocabulary
    from shards.grammar import GrammarCompiler

# Most of them wait for one that compiles; what is known already needs none for long.
_THREADS = 8


class Grammars:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grammar")
        self._compiler: GrammarCompiler | None = None
        self._starting = threading.Lock()

    async def compiled(self, spec: GrammarSpec) -> Grammar:
        """
        Raises:
            RequestError: what is asked for cannot be promised (field named).
            QueueFullError: others' schemas are being compiled.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._compile, spec)

    def close(self) -> None:
        """End what is being compiled."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._compiler is not None:
            self._compiler.close()

    def _compile(self, spec: GrammarSpec) -> Grammar:
        with self._starting:
            if self._compiler is None:
                from shards.grammar import GrammarCompiler

                self._compiler = GrammarCompiler(self._vocabulary)
        return self._compiler.compile(spec)
