"""What our gateway is measured against: bare Ray Serve applications with the same hops.

    client ─► Edge (FastAPI ingress) ─► Front (one call) ─► Group (one stream) ─► Rank (an actor)

They check nobody, tokenise nothing and keep no books. ``each`` sends every token as an item of its
own through the handle, which is what forwarding an engine's stream naively does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import ray
from fastapi import FastAPI, Request
from ray import serve
from ray.serve import Application
from starlette.responses import StreamingResponse

EVENT = 'data: {"token": %d}\n\n'


class Rank:
    async def submit(self, tokens: int) -> int:
        return tokens


class Group:
    """Serve deployment."""

    def __init__(self) -> None:
        self._rank = ray.remote(Rank).options(num_cpus=0).remote()

    async def stream(self, tokens: int, each: bool) -> AsyncGenerator[tuple[int, ...], None]:
        ids = tuple(range(await self._rank.submit.remote(tokens)))
        for part in ((token,) for token in ids) if each else (ids,):
            yield part


class Front:
    """Serve deployment."""

    async def call(self, body: dict[str, Any]) -> int:
        return int(body["max_tokens"])


@serve.ingress()
class Edge:
    """Serve deployment."""

    def __init__(self, front: Any, group: Any) -> None:
        self._front = front.options(_by_reference=True)
        self._group = group.options(_by_reference=True, stream=True)

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.post("/echo")
        async def echo(request: Request) -> StreamingResponse:
            return await self._answer(await request.json(), each=False)

        @app.post("/each")
        async def each(request: Request) -> StreamingResponse:
            return await self._answer(await request.json(), each=True)

        return app

    async def _answer(self, body: dict[str, Any], each: bool) -> StreamingResponse:
        tokens = await self._front.call.remote(body)

        async def events() -> AsyncGenerator[str, None]:
            async for part in self._group.stream.remote(tokens, each):
                yield "".join(EVENT % token for token in part)

        return StreamingResponse(events(), media_type="text/event-stream")


def build(max_ongoing_requests: int) -> Application:
    """The application; its routes are /echo and /each under its prefix."""

    def tier(kind: type) -> Any:
        return serve.deployment(
            kind, max_ongoing_requests=max_ongoing_requests, ray_actor_options={"num_cpus": 0.5}
        )

    return tier(Edge).bind(tier(Front).bind(), tier(Group).bind())
