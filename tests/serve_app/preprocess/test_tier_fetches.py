"""The tier itself, over the bundled model: an address becomes the prompt that its picture makes.

In the test's own process, where the network can be replaced: the system takes that from no setting,
so no config can open the way to loopback, and no test of a running system can fetch.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ops import nano
from serve_app.config import parse_config
from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest
from serve_app.preprocess import tier as module
from serve_app.preprocess.fetch import Fetcher
from serve_app.preprocess.tier import Preprocess
from shards.conversation import Conversation, Message, Text
from shards.conversation import Image as Shown
from tests.serve_app.preprocess.fetching import URL
from tests.serve_app.preprocess.internet import HOST, Internet, WebServer, whole


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("nano") / "model")


@pytest.fixture
def tier(
    model: Path, internet: Internet, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Preprocess]:
    monkeypatch.setattr(module, "put_array", np.copy)
    monkeypatch.setattr(module, "observed", lambda config, name: None)
    monkeypatch.setattr(module, "Fetcher", partial(Fetcher, network=internet, trust=trust))
    preprocess = {"workers": 1, "fetch": {"allow_hosts": [HOST]}}
    tier = Preprocess(parse_config({"model": {"path": str(model)}, "preprocess": preprocess}))
    yield tier
    tier._workers.close()


def asking(*sources: PictureSource) -> PrepareRequest:
    parts: list[Shown | Text] = [Shown(place) for place in range(len(sources))]
    parts.append(Text("What is this?"))
    return PrepareRequest("r", Conversation((Message("user", tuple(parts)),)), sources)


async def test_an_address_becomes_the_prompt_that_its_picture_makes(
    tier: Preprocess, server: WebServer
) -> None:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    server.answers["/a.png"] = whole(file.getvalue())
    sent = await tier.prepare(asking(PictureSource(file.getvalue(), "p")))
    fetched = await tier.prepare(asking(PictureSource(b"", "p", URL)))
    assert fetched.token_ids == sent.token_ids
    assert [each.picture for each in fetched.patches] == [each.picture for each in sent.patches]
    assert np.array_equal(fetched.patches[0].ref, sent.patches[0].ref)
    with pytest.raises(InvalidRequest) as caught:
        await tier.prepare(asking(PictureSource(b"", "p", f"https://{HOST}/none")))
    assert caught.value.param == "p"
    assert server.paths == ["/a.png", "/none"]
