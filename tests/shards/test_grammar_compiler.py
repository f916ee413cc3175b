"""What compiling may cost: time, memory, what is kept; and who else it may stall."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shards.errors import QueueFullError, RequestError
from shards.grammar import GrammarCompiler, GrammarLimits
from shards.grammar_recipe import Recipe, text_recipe
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules
from shards.tokenizer import Tokenizer
from tests.shards.conversations import DATA, FILES
from tests.shards.spelling import spell


@pytest.fixture(scope="module")
def vocabulary():
    return Tokenizer(DATA / FILES["sentencepiece"]).vocabulary


def text(schema: object) -> GrammarSpec:
    return GrammarSpec(TextRules(json.dumps(schema), param="the.field"))


def lengths(count: int) -> dict[str, object]:
    """Strings, each of another length, which costs most."""
    strings = {f"p{i}": {"type": "string", "maxLength": i + 3} for i in range(count)}
    return {"type": "object", "properties": strings}


def strings(count: int) -> GrammarSpec:
    return text(lengths(count))


def compiler_of(vocabulary, **limits) -> GrammarCompiler:
    return GrammarCompiler(vocabulary, GrammarLimits(**limits))


def process_of(compiler: GrammarCompiler) -> subprocess.Popen[bytes]:
    process = compiler._rehearsal._process
    assert process is not None
    return process


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
    with compiler._stage:
        assert compiler.compile(text({"type": "integer"})) is known
        compiler.compile(GrammarSpec(TextRules(), CallRules((CallableTool("f"),))))
    compiler.close()


def test_threads_that_want_the_same_schema_compile_it_once(vocabulary, monkeypatch):
    compiler = compiler_of(vocabulary, compile_s=60)
    rehearsed: list[Recipe] = []
    survive = compiler._rehearsal.survive

    def counted(recipe: Recipe) -> int:
        rehearsed.append(recipe)
        return survive(recipe)

    monkeypatch.setattr(compiler._rehearsal, "survive", counted)
    with ThreadPoolExecutor(4) as pool:
        grammars = list(pool.map(compiler.compile, [strings(10)] * 4))
    assert len(rehearsed) == 1
    assert all(grammar is grammars[0] for grammar in grammars)
    compiler.close()


def test_another_prefix_compiles_nothing_and_is_read_once(vocabulary, monkeypatch):
    compiler = compiler_of(vocabulary, compile_s=60)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    specs = [replace(text(schema), prefix=prefix) for prefix in ('{"a": ', '{"a": 1', "[")]
    first, second = compiler.compile(specs[0]), compiler.compile(specs[1])
    assert first.text is second.text
    assert compiler.known(specs[2]) is not None
    with pytest.raises(RequestError, match="does not begin"):
        compiler.compile(specs[2])
    monkeypatch.delattr("xgrammar.GrammarMatcher.accept_string")
    one, other = first.matcher(), first.matcher()
    [fresh] = other.masks(())
    [token] = spell("1", vocabulary)[-1:]
    one.accept(token)
    assert one.masks(()) != (fresh,)
    assert other.masks(()) == (fresh,)
    assert second.matcher().masks(()) != (fresh,)
    compiler.close()


def test_refusals_and_the_schemas_themselves_count_as_kept(vocabulary):
    compiler = compiler_of(vocabulary, cache_bytes=3000)
    for index in range(4):
        with pytest.raises(RequestError):
            compiler.compile(text({"not": {}, "description": f"{index}" * 1000}))
    assert 1000 < compiler.cached_bytes <= 3000


def test_a_process_that_dies_idle_is_replaced(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    compiler.compile(text({"type": "integer"}))
    process = process_of(compiler)
    process.kill()
    process.wait()
    assert compiler.compile(text({"type": "null"}))
    compiler.close()


def test_a_process_that_is_killed_at_work_is_not_the_schemas_fault(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    compiler.compile(text({"type": "integer"}))
    process = process_of(compiler)
    with ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(compiler.compile, strings(200))
        while not compiler._stage.locked():
            time.sleep(0.001)
        time.sleep(0.1)
        process.kill()
        with pytest.raises(QueueFullError):
            compiling.result()
    assert compiler.known(strings(200)) is None
    compiler.close()


def test_a_machine_too_busy_to_compile_is_not_the_schemas_fault(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    compiler.compile(text({"type": "integer"}))
    compiler._rehearsal._timeout_s = 0.2
    process_of(compiler).send_signal(signal.SIGSTOP)
    with pytest.raises(QueueFullError, match="busy"):
        compiler.compile(text({"type": "null"}))
    assert compiler.compile(text({"type": "null"}))  # by a new process
    compiler.close()


def test_a_process_that_dies_while_it_starts_is_named_and_forgotten(vocabulary, monkeypatch):
    compiler = compiler_of(vocabulary, compile_s=60)
    with monkeypatch.context() as context:
        context.setattr(sys, "executable", "/bin/false")
        with pytest.raises(RuntimeError, match="does not start"):
            compiler.compile(text({"type": "integer"}))
    assert compiler.compile(text({"type": "integer"}))
    compiler.close()


def test_a_compilation_ends_without_its_rank(vocabulary):
    compiler = compiler_of(vocabulary, compile_s=60)
    compiler.compile(text({"type": "integer"}))
    process = process_of(compiler)
    compiler._rehearsal._timeout_s = 0.2
    compiler._rehearsal._sent(text_recipe(lengths(200), space=False))
    assert process.wait(30) == -signal.SIGPROF
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
