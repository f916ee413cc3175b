"""What compiling may cost: time, memory, what is kept; and who else it may stall."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest

from shards.errors import QueueFullError, RequestError
from shards.grammar import GrammarCompiler, GrammarLimits
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules
from shards.tokenizer import Tokenizer
from tests.shards.conversations import DATA, FILES


@pytest.fixture(scope="module")
def vocabulary():
    return Tokenizer(DATA / FILES["sentencepiece"]).vocabulary


def text(schema: object) -> GrammarSpec:
    return GrammarSpec(TextRules(json.dumps(schema), param="the.field"))


def strings(count: int) -> GrammarSpec:
    """Each of another length, which costs most."""
    lengths = {f"p{i}": {"type": "string", "maxLength": i + 3} for i in range(count)}
    return text({"type": "object", "properties": lengths})


def compiler_of(vocabulary, **limits) -> GrammarCompiler:
    return GrammarCompiler(vocabulary, GrammarLimits(**limits))


def test_a_spec_is_compiled_once(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    first = compiler.compile(text({"type": "integer"}))
    assert compiler.compile(text({"type": "integer"})) is first
    assert compiler.compile(text({"type": "null"})) is not first
    compiler.close()


def test_what_is_kept_is_bounded(vocabulary):
    compiler = compiler_of(vocabulary, cache_entries=2)
    specs = [GrammarSpec(calls=CallRules((CallableTool(name),))) for name in "abc"]
    first, *_ = [compiler.compile(spec) for spec in specs]
    assert compiler.compile(specs[0]) is not first
    one = compiler.cached_bytes // 2
    tight = compiler_of(vocabulary, cache_bytes=one + one // 2)
    for spec in specs:
        tight.compile(spec)
    assert 0 < tight.cached_bytes <= one + one // 2


def test_a_schema_that_takes_too_long_is_refused_and_remembered(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    compiler.compile(text({"type": "integer"}))  # its process runs now
    compiler._rehearsal._timeout_s = 0.2
    with pytest.raises(RequestError, match="takes more than") as caught:
        compiler.compile(strings(200))
    assert caught.value.param == "the.field"
    started = time.monotonic()
    with pytest.raises(RequestError, match="takes more than"):
        compiler.compile(strings(200))
    assert time.monotonic() - started < 0.1
    compiler._rehearsal._timeout_s = 60
    assert compiler.compile(text({"type": "boolean"}))  # by a new process
    compiler.close()


def test_a_grammar_that_takes_too_much_memory_is_refused(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60, grammar_bytes=20_000)
    with pytest.raises(RequestError, match="takes more than 20000 bytes"):
        compiler.compile(strings(3))
    compiler.close()
    compiler = compiler_of(vocabulary, compile_s=60, compile_bytes=1 << 20)
    with pytest.raises(RequestError, match="too much memory"):
        compiler.compile(strings(40))
    compiler.close()


def test_what_is_known_or_needs_no_schema_waits_for_no_one(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    known = compiler.compile(text({"type": "integer"}))
    thread = threading.Thread(target=lambda: compiler.compile(strings(25)))
    thread.start()
    while not compiler._stage.locked():
        time.sleep(0.001)
    assert compiler.compile(text({"type": "integer"})) is known
    compiler.compile(GrammarSpec(TextRules(), CallRules((CallableTool("f"),))))
    assert thread.is_alive()
    compiler._limits = GrammarLimits(compile_s=0.01)
    with pytest.raises(QueueFullError):
        compiler.compile(text({"type": "null"}))
    thread.join()
    compiler.close()


def test_a_fault_among_several_tools_names_them_all(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60, grammar_bytes=1000)
    schema = '{"type": "object"}'
    tools = [CallableTool(name, schema, f"tools[{name}].function.parameters") for name in "ab"]
    for some, param in ((tools[:1], tools[0].param), (tools, "tools")):
        with pytest.raises(RequestError) as caught:
            compiler.compile(GrammarSpec(calls=CallRules(tuple(some))))
        assert caught.value.param == param
    compiler.close()


def test_nothing_reaches_for_the_network():
    """Importing and compiling open no socket but the one between two processes."""
    program = """
import socket, sys
def refuse(*args): raise AssertionError("the network was reached for")
socket.socket.connect = socket.getaddrinfo = refuse
from shards.grammar import GrammarCompiler
from shards.request import GrammarSpec, TextRules
from shards.tokenizer import Tokenizer
from pathlib import Path
compiler = GrammarCompiler(Tokenizer(Path(sys.argv[1])).vocabulary)
compiler.compile(GrammarSpec(TextRules()))
"""
    file = str(DATA / FILES["sentencepiece"])
    subprocess.run([sys.executable, "-c", program, file], check=True, timeout=120)
