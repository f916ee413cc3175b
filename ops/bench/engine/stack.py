"""The whole system (REST, Serve, engine, accounts) beside the bare engine: the same questions."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp

from ops.bench.engine.model import Model
from ops.bench.engine.ours import Ours
from ops.bench.engine.prompts import Prompt
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import Budget, Spread, TokensDifferError, interleaved
from ops.bench.ports import free_ports
from serve_app import cluster
from serve_app.accounting.office import prepare
from serve_app.app import build
from serve_app.config import Config, load_config
from shards.conversation import Conversation, Message, Text
from shards.detokenizer import TextStream
from shards.tokenizer import Tokenizer

EIGHT = 8
KEY = "sk-pixtral-engine-bench-of-the-whole-stack"
_QUESTION = "Question {}: which of the shapes in the drawing are larger than the one beside them?"


@dataclass(frozen=True, slots=True)
class Answered:
    """Texts by question, and tokens/s over all of them from the first sent to the last end."""

    texts: tuple[str, ...]
    tokens_per_s: float


def whole_stack(model: Model, ours: Ours, budget: Budget) -> Row:
    """Eight streams over HTTP beside eight requests to the engine in this process."""
    # Long enough that the system's own start and end of a stream do not stand for it all.
    tokens = 2 * budget.new_tokens
    tokenizer = Tokenizer.from_folder(model.folder)

    def bare(repetition: int) -> Answered:
        prompts = [_prompt(tokenizer, text) for text in _questions(repetition)]
        run = ours.run(prompts, tokens)
        return Answered(tuple(_text(tokenizer, each) for each in run.tokens), run.tokens_per_s)

    with _system(model, budget.threads) as config:
        runs = interleaved(
            max(1, budget.repeats - 1),
            {
                "bare": bare,
                "stack": lambda repetition: _ask(config, _questions(repetition), tokens),
            },
        )
    for one, other in zip(*runs.values(), strict=True):
        if one.texts != other.texts:
            raise TokensDifferError(f"whole stack: {other.texts} beside {one.texts}")
    rates = {name: Spread.most([each.tokens_per_s for each in runs[name]]) for name in runs}
    return Row(
        "whole stack",
        f"{EIGHT} streams at once of {tokens} tokens: REST, preprocessing, Serve, holds, journal"
        " and settlement (SQLite), client on the same cores; the engine's texts are the same.",
        {"tokens/s, bare engine": rates["bare"], "tokens/s, whole stack": rates["stack"]},
        (Goal("tokens/s, x bare engine", rates["stack"].best / rates["bare"].best, 0.85),),
    )


def _questions(repetition: int) -> list[str]:
    return [_QUESTION.format(repetition * EIGHT + number) for number in range(EIGHT)]


def _prompt(tokenizer: Tokenizer, question: str) -> Prompt:
    conversation = Conversation((Message("user", (Text(question),)),))
    return Prompt(tokenizer.encode(conversation, []).token_ids)


def _text(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    stream = TextStream(tokenizer.vocabulary, ())
    return stream.push(tuple(tokens)) + stream.finish()


def _ask(config: Config, questions: Sequence[str], tokens: int) -> Answered:
    return asyncio.run(_ask_all(config, questions, tokens))


async def _ask_all(config: Config, questions: Sequence[str], tokens: int) -> Answered:
    url = f"http://127.0.0.1:{config.gateway.port}"
    headers = {"Authorization": f"Bearer {KEY}"}
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:
        started = time.perf_counter()
        bodies = [_body(config.model.name, question, tokens) for question in questions]
        answers = await asyncio.gather(*(_stream(session, body) for body in bodies))
        took = time.perf_counter() - started
    return Answered(tuple(text for text, _ in answers), sum(count for _, count in answers) / took)


def _body(model: str, question: str, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _stream(session: aiohttp.ClientSession, body: dict[str, Any]) -> tuple[str, int]:
    """The text, and how many tokens it took."""
    text, count = "", 0
    async with session.post("/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                raise RuntimeError(f"the system answered {event['error']}")
            for choice in event["choices"]:
                text += choice["delta"].get("content") or ""
            if event.get("usage"):
                count = event["usage"]["completion_tokens"]
    return text, count


@contextmanager
def _system(model: Model, threads: int) -> Iterator[Config]:
    """All of it on loopback, with the model on one rank; yields its config."""
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        config = _config(model, threads, state)
        prepare(config, KEY)
        with patch.dict(os.environ, cluster.environment(config, state)):
            cluster.start(config, state)
            try:
                # Ray reads its environment when it is imported, and this process has imported it.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    process.submit(_start, config, state).result()
                    yield config
            finally:
                cluster.stop(config, state)


def _start(config: Config, state: Path) -> None:
    from ray import serve

    with cluster.connected(config, state):
        cluster.start_edge(config)
        serve.run(build(config), name=cluster.APPLICATION, route_prefix="/")


def _config(model: Model, threads: int, folder: Path) -> Config:
    http, dashboard, gcs, metrics = free_ports(4)
    return load_config(
        None,
        {
            "model.path": str(model.folder),
            "gateway.port": http,
            "decoder.threads_per_rank": threads,
            "decoder.max_batch_sequences": EIGHT,
            "decoder.journal_folder": str(folder / "journal"),
            "accounting.pepper_file": str(folder / "pepper"),
            "accounting.database_url": f"sqlite:///{folder / 'ledger.db'}",
            "ray.dashboard_port": dashboard,
            "ray.gcs_port": gcs,
            "ray.metrics_port": metrics,
        },
    )
