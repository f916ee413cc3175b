"""A group's grammars: compiled off the event loop, by a library that is not there before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from serve_app.config import GrammarCosts
from serve_app.decoder.grammars import Grammars
from shards.errors import RequestError
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules
from shards.tokenizer import Tokenizer
from tests.shards.conversations import DATA, FILES


async def test_a_spec_is_compiled_while_the_loop_goes_on():
    grammars = Grammars(Tokenizer(DATA / FILES["sentencepiece"]).vocabulary, GrammarCosts())
    compiling = asyncio.create_task(grammars.compiled(GrammarSpec(TextRules()), "team"))
    turns = 0
    while not compiling.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1
    grammar = await compiling
    assert len(grammar.matcher().masks(())) == 1
    assert await grammars.compiled(GrammarSpec(TextRules()), "team") is grammar
    spec = GrammarSpec(calls=CallRules((CallableTool("f", '{"not": {}}', "tools[0]"),)))
    with pytest.raises(RequestError) as caught:
        await grammars.compiled(spec, "team")
    assert caught.value.param == "tools[0]"
    grammars.close()


async def test_a_flood_of_schemas_stalls_no_one_else():
    """With the schemas' thread held, what is known, continued or without a schema goes on."""
    grammars = Grammars(Tokenizer(DATA / FILES["sentencepiece"]).vocabulary, GrammarCosts())
    known = GrammarSpec(TextRules('{"type": "object"}'))
    grammar = await grammars.compiled(known, "other")
    # A text that goes on has no space before it: one more grammar, whatever is continued.
    await grammars.compiled(replace(known, prefix="{ "), "other")
    release = threading.Event()
    held = grammars._slow.submit(release.wait, 30)
    flood = [
        asyncio.create_task(
            grammars.compiled(
                GrammarSpec(TextRules(f'{{"type":"string","maxLength":{n}}}')), "team"
            )
        )
        for n in range(20)
    ]
    await asyncio.sleep(0)
    assert await grammars.compiled(known, "other") is grammar
    await grammars.compiled(replace(known, prefix="{"), "other")
    await grammars.compiled(GrammarSpec(calls=CallRules((CallableTool("f"),))), "other")
    assert not held.done()
    for task in flood:
        task.cancel()
    release.set()
    grammars.close()


def test_a_replica_imports_no_xgrammar():
    program = (
        "import sys, serve_app.decoder.grammars, serve_app.gateway.answer_rules;"
        "assert not {'xgrammar', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
