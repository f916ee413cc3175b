"""How fast one row by a matrix can be had here, asked again beside whatever is held against it.

A decode step of one sequence is little else. Memory that is shared with others may be three times
as fast a minute later: a bandwidth says something of the stretch of time it was measured in only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, the field's name for it

from ops.bench.engine.model import FLOAT_BYTES, Model
from shards.host_memory import on_large_pages
from shards.kernels import Kernels
from shards.native.kernels import kernels_for

# Enough to be far beyond every cache, few enough to be compiled soon.
_LAYERS = 6
# Of each way in a stretch: about as long as an answer's decoding, in which slow moments count too.
_STRETCH_S = 0.3


class MatrixVector:
    """The decoder's own products with one row, some layers' and the head's, by every way there is:
    eager torch, compiled torch, the engine's kernels.

    Attributes:
        failed: why compiling failed, where it did.
    """

    def __init__(self, model: Model) -> None:
        text = model.config.text
        layers = [
            _matrix(height, width)
            for _ in range(min(_LAYERS, text.layers))
            for height, width in ((2 * text.hidden_dim, text.dim), (text.dim, text.hidden_dim))
        ]
        head = [_matrix(text.vocab_size, text.dim)]
        self.failed = ""
        self._ways: dict[str, _Way] = {}
        kernels = kernels_for("auto", torch.device("cpu"), torch.float32)
        for name, matrices in (("feed-forward", layers), ("head", head)):
            self._add(f"{name}, eager", _Chain(matrices), matrices)
            if type(kernels) is not Kernels:
                self._add(f"{name}, ours", _Chain(matrices, kernels), matrices)
            try:
                with redirect_stderr(StringIO()):  # torch tells there of every kernel that it tries
                    self._add(f"{name}, compiled", compiled(_Chain(matrices)), matrices)
            except Exception as error:  # no compiler, or one that it cannot use: of any kind
                self.failed = f"{type(error).__name__}: {str(error).splitlines()[0]}"

    def bests(self, repeats: int) -> Mapping[str, float]:
        """Bytes/s of each way's best pass of ``repeats``."""
        return {name: way.best(repeats) for name, way in self._ways.items()}

    def stretch(self) -> float:
        """Bytes/s of the way that is best now, each taken for some tenths of a second in a row."""
        return max(way.stretch() for way in self._ways.values())

    def _add(self, name: str, run: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> None:
        way = _Way(run, matrices)
        way.best(1)  # what can fail, fails before it counts
        self._ways[name] = way


class _Way:
    def __init__(self, run: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> None:
        self._run = run
        self._row = torch.randn(1, matrices[0].shape[1])
        self._bytes = sum(matrix.numel() for matrix in matrices) * FLOAT_BYTES

    def best(self, repeats: int) -> float:
        return self._bytes / min(self._seconds() for _ in range(repeats))

    def stretch(self) -> float:
        took, passes = 0.0, 0
        while took < _STRETCH_S:
            took += self._seconds()
            passes += 1
        return passes * self._bytes / took

    def _seconds(self) -> float:
        with torch.inference_mode():
            started = time.perf_counter()
            self._run(self._row)
            return time.perf_counter() - started


class _Chain(torch.nn.Module):
    """Each matrix times as many of the numbers before as it is wide."""

    def __init__(self, matrices: Sequence[Tensor], kernels: Kernels | None = None) -> None:
        super().__init__()
        self.matrices = torch.nn.ParameterList(
            torch.nn.Parameter(matrix, requires_grad=False) for matrix in matrices
        )
        self._linear = F.linear if kernels is None else kernels.linear

    def forward(self, row: Tensor) -> Tensor:
        for matrix in self.matrices:
            row = self._linear(row[:, : matrix.shape[1]], matrix)
        return row


def compiled(module: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """As fast as torch gets it here: weights frozen into the graph, kernels chosen by trial."""
    import torch._dynamo
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    chosen: dict[str, Any] = {
        "freezing": True,
        "max_autotune": True,
        "max_autotune_gemm_backends": "CPP,ATEN",
    }
    function: Callable[[Tensor], Tensor] = torch.compile(module, options=chosen, fullgraph=True)

    def run(row: Tensor) -> Tensor:
        with inductor.patch(chosen), torch.no_grad():
            return function(row)

    return run


def _matrix(height: int, width: int) -> Tensor:
    """Where weights lie, too: on large pages."""
    return on_large_pages(torch.empty(height, width)).normal_()
