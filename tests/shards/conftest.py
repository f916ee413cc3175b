"""Both families' tokenizers, and unmodified mistral-common beside them."""

from __future__ import annotations

import pytest
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from shards.tokenizer import Tokenizer
from tests.shards.conversations import DATA, FILES


@pytest.fixture(scope="session", params=["sentencepiece", "tekken"])
def family(request) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def tokenizer(family) -> Tokenizer:
    return Tokenizer(DATA / FILES[family])


@pytest.fixture(scope="session")
def oracle(family):
    return MistralTokenizer.from_file(DATA / FILES[family], mode=ValidationMode.serving)
