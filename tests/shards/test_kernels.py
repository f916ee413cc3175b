"""The C++ kernels against the plain torch beside them; and the same bits in any company."""

import itertools
import math
import os
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shards.attention import PagedCache, StepLayout
from shards.errors import KernelError
from shards.kernels import Heads, Kernels
from shards.native import build
from shards.native.kernels import NativeKernels, kernels_for
from shards.rotary import Rotation, text_rotation
from tests.shards.items import Part

CPU = torch.device("cpu")
REFERENCE = Kernels()
BLOCKS = 64
HEADS = [
    Heads(query, key, dim)
    for query, key in ((1, 1), (4, 4), (4, 1), (6, 2), (12, 1), (10, 2))
    for dim in (8, 20, 32, 64, 88, 128)
]


@pytest.fixture(scope="module")
def native():
    return kernels_for("native", CPU, torch.float32)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("rows", [*range(1, 34), 47, 130])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 5), (64, 17), (200, 96), (333, 10)])
def test_linear(native, rows, inputs, outputs):
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs) / inputs**0.5
    bias = torch.randn(outputs)
    close(native.linear(x, weight), REFERENCE.linear(x, weight))
    close(native.linear(x, weight, bias), REFERENCE.linear(x, weight, bias))


def test_linear_over_threads_and_blocks(native):
    x, weight = torch.randn(40, 512), torch.randn(3001, 512) / 20
    for rows in (1, 9, 32, 40):
        close(native.linear(x[:rows], weight), REFERENCE.linear(x[:rows], weight))


def test_linear_of_a_cut_row(native):
    x, weight = torch.randn(5, 64), torch.randn(9, 32)
    close(native.linear(x[:, 32:], weight), REFERENCE.linear(x[:, 32:], weight))


@pytest.mark.parametrize("rows", [0, 1, 3, 300])
@pytest.mark.parametrize("width", [1, 5, 16, 88, 257])
def test_norm_and_gate(native, rows, width):
    x, weight = 30 * torch.randn(rows, width), torch.randn(width)
    close(native.rms_norm(x, weight, 1e-5), REFERENCE.rms_norm(x, weight, 1e-5))
    gate_up = 30 * torch.randn(rows, 2 * width)
    close(native.gated(gate_up), REFERENCE.gated(gate_up))


def test_the_gate_far_from_zero(native):
    gate = torch.tensor([-1e30, -200.0, -88.0, -0.0, 88.0, 200.0, 1e30, math.nan]).repeat(5)
    gate_up = torch.cat((gate, torch.ones_like(gate))).unsqueeze(0)
    torch.testing.assert_close(
        native.gated(gate_up), REFERENCE.gated(gate_up), atol=1e-30, rtol=1e-5, equal_nan=True
    )


class Sequence:
    """A sequence all of whose projections [length, width] are known from the start."""

    def __init__(self, length: int, heads: Heads, table: tuple[int, ...]) -> None:
        self.qkv = torch.randn(length, heads.width)
        self.table = table


Spans = list[tuple[Sequence, int, int]]


def compute(kernels: Kernels, heads: Heads, block_size: int, steps: list[Spans]) -> list[Tensor]:
    """Run ``steps``, each over spans [start, stop) of sequences; attended rows of every step."""
    cache = PagedCache.empty(BLOCKS, block_size, heads.key, heads.dim, CPU, torch.float32)
    # What an earlier owner of a block left behind must not show.
    cache.keys.fill_(1e6)
    cache.values.fill_(1e6)
    attended = []
    for spans in steps:
        items = [
            Part(tuple(range(start, stop)), start, sequence.table)
            for sequence, start, stop in spans
        ]
        layout = StepLayout.of(items, block_size, CPU)
        rotation = text_rotation(layout.positions, heads.dim, 1e4)
        qkv = torch.cat([sequence.qkv[start:stop] for sequence, start, stop in spans])
        attended.append(kernels.attend_paged(qkv, heads, rotation, cache, layout))
    return attended


def deal(count: int) -> list[tuple[int, ...]]:
    blocks = list(range(BLOCKS))
    random.Random(0).shuffle(blocks)
    return [tuple(blocks[index::count]) for index in range(count)]


@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("block_size", [3, 16])
def test_paged_attention_of_a_mixed_step(native, heads, block_size):
    lengths = (1, 40, 37, 60, 17, 33)
    one, fresh, decoding, late, draft, other = (
        Sequence(length, heads, table)
        for length, table in zip(lengths, deal(len(lengths)), strict=True)
    )
    lengths_now = (30, 20, 12, 32)
    past = zip((decoding, late, draft, other), lengths_now, strict=True)
    steps: list[Spans] = [
        [(sequence, 0, length) for sequence, length in past],
        [
            (one, 0, 1),
            (decoding, 30, 31),
            (late, 20, 60),
            (draft, 12, 17),
            (fresh, 0, 40),
            (other, 32, 33),
        ],
    ]
    if block_size == 3:
        steps = [
            [(s, start, min(stop, 30)) for s, start, stop in spans if start < 30] for spans in steps
        ]
    for actual, expected in zip(
        compute(native, heads, block_size, steps),
        compute(REFERENCE, heads, block_size, steps),
        strict=True,
    ):
        close(actual, expected)


@pytest.mark.parametrize("heads", [Heads(4, 4, 64), Heads(2, 2, 88), Heads(3, 3, 8)], ids=str)
def test_packed_attention(native, heads):
    lengths = [6, 1, 150, 33]
    qkv = torch.randn(sum(lengths), heads.width)
    angles = torch.randn(len(qkv), heads.dim // 2)
    rotation = Rotation.by_angle(angles)
    expected = REFERENCE.attend_packed(qkv, heads, rotation, lengths)
    close(native.attend_packed(qkv.clone(), heads, rotation, lengths), expected)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 200),
    inputs=st.integers(1, 100),
    outputs=st.integers(1, 70),
    data=st.data(),
)
def test_a_row_has_the_same_bits_in_any_company(rows, inputs, outputs, data):
    native = kernels_for("native", CPU, torch.float32)
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    together = native.linear(x, weight)
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first + 1, rows))
    assert torch.equal(native.linear(x[first:last], weight), together[first:last])


@settings(max_examples=30, deadline=None)
@given(length=st.integers(2, 150), cuts=st.sets(st.integers(1, 149)), company=st.booleans())
def test_attention_has_the_same_bits_however_a_sequence_is_cut(length, cuts, company):
    native, heads = kernels_for("native", CPU, torch.float32), Heads(4, 2, 20)
    tables = deal(2)
    sequence, other = Sequence(length, heads, tables[0]), Sequence(1, heads, tables[1])
    (whole,) = compute(native, heads, 16, [[(sequence, 0, length)]])
    bounds = [0, *sorted(cut for cut in cuts if cut < length), length]
    beside: Spans = [(other, 0, 1)] if company else []
    steps = [[*beside, (sequence, start, stop)] for start, stop in itertools.pairwise(bounds)]
    parts = [rows[len(beside) :] for rows in compute(native, heads, 16, steps)]
    assert torch.equal(torch.cat(parts), whole)


def test_what_is_not_float32_on_the_cpu_goes_to_torch(native):
    x, weight = torch.randn(3, 8).bfloat16(), torch.randn(4, 8).bfloat16()
    assert torch.equal(native.linear(x, weight), REFERENCE.linear(x, weight))
    assert type(kernels_for("auto", CPU, torch.bfloat16)) is Kernels
    assert type(kernels_for("auto", torch.device("meta"), torch.float32)) is Kernels
    assert type(kernels_for("torch", CPU, torch.float32)) is Kernels
    with pytest.raises(KernelError, match="bfloat16"):
        kernels_for("native", CPU, torch.bfloat16)


@pytest.fixture
def _fresh_choice():
    kernels_for.cache_clear()
    yield
    kernels_for.cache_clear()


@pytest.mark.usefixtures("_fresh_choice")
def test_without_a_compiler_torch_computes_and_says_so_once(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert type(kernels_for("auto", CPU, torch.float32)) is Kernels
    kernels_for("auto", CPU, torch.float32)
    assert [record.getMessage() for record in caplog.records] == [
        "native kernels are not used: no C++ compiler: none of g++, c++ is on PATH"
    ]
    with pytest.raises(KernelError, match="no C"):
        kernels_for("native", CPU, torch.float32)


@pytest.mark.usefixtures("_fresh_choice")
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    compiler = tmp_path / "g++"
    compiler.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "if '--version' not in sys.argv: sys.exit('no such instruction')\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(KernelError, match="no such instruction"):
        kernels_for("native", CPU, torch.float32)


@pytest.mark.usefixtures("_fresh_choice")
def test_a_user_without_a_home_computes_with_torch(monkeypatch, caplog):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    # Of an id that the system does not know, as in many a container.
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert type(kernels_for("auto", CPU, torch.float32)) is Kernels
    assert "no folder to keep kernels in" in caplog.text


def test_processes_that_start_together_build_once(tmp_path):
    script = (
        "import sys, pathlib; from shards.native import build;"
        "run = build._run;"
        "build._run = lambda command: print('-shared' in command) or run(command);"
        "build.library(pathlib.Path(sys.argv[1]))"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [start.communicate(timeout=120)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0]
    assert sum(lines.count("True") for lines in printed) == 1
    assert len(list(tmp_path.glob("*.so"))) == 1


def test_a_library_is_found_again_without_a_build(monkeypatch):
    folder = build.cache_folder()
    first = build.library(folder)

    def refuse(*args: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(build, "_build", refuse)
    assert build.library(folder) == first
    assert isinstance(kernels_for("native", CPU, torch.float32), NativeKernels)
