"""What this machine can do, measured in the run that is compared with it.

Three limits: how fast memory is read at all, how fast the best matrix-vector product here reads
its matrix, and how many operations a second products at the model's own shapes reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, the field's name for it

from ops.bench.engine.model import FLOAT_BYTES, Model
from ops.bench.engine.work import Product, products

# Far beyond every cache. Products rotate matrices of an eighth of it: one small matrix, taken again
# and again, would read none of the memory.
_FAR_BYTES = 2**30
# Enough to be far beyond every cache, few enough to be compiled soon.
_LAYERS = 6
# All calls of one measurement together, unless they are very short.
_LEAST_S = 1.0
_MOST_REPEATS = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes/s and operations/s.

    Attributes:
        read: a plain sum over memory.
        matvecs: by how they were made, the best of each; one that failed is missing.
        gemm: over all products of the picture prompt, each weighted by its operations.
        shapes: operations/s of each product, by name.
        failed: why a way to make products could not be measured.
    """

    read: float
    matvecs: dict[str, float]
    gemm: float
    shapes: dict[str, float]
    failed: str = ""

    @property
    def matvec(self) -> float:
        """The best matrix-vector product's."""
        return max(self.matvecs.values())


def measure(model: Model, tokens: int, patches: int, repeats: int = 5) -> Limits:
    """
    Args:
        tokens, patches: of the prompt whose products are weighed.
    """
    matvecs, failed = matvec_bandwidths(model, repeats)
    weighed = products(model.config, tokens, patches)
    shapes = {product.name: product_rate(product) for product in weighed}
    seconds = sum(product.flops / shapes[product.name] for product in weighed)
    return Limits(
        read=read_bandwidth(repeats),
        matvecs=matvecs,
        gemm=sum(product.flops for product in weighed) / seconds,
        shapes=shapes,
        failed=failed,
    )


def read_bandwidth(repeats: int = 5) -> float:
    values = torch.ones(_FAR_BYTES // FLOAT_BYTES)
    return values.numel() * FLOAT_BYTES / best_seconds(values.sum, repeats)


def matvec_bandwidths(model: Model, repeats: int) -> tuple[dict[str, float], str]:
    """Bytes/s of the decoder's own products with one row: some layers', and the head's.

    Returns:
        by how they are computed; why compiling failed, where it did.
    """
    text = model.config.text
    layers = [
        torch.randn(height, width)
        for _ in range(min(_LAYERS, text.layers))
        for height, width in ((2 * text.hidden_dim, text.dim), (text.dim, text.hidden_dim))
    ]
    head = [torch.randn(text.vocab_size, text.dim)]
    found, failed = {}, ""
    for name, matrices in (("feed-forward", layers), ("head", head)):
        found[f"{name}, eager"] = _bandwidth(_Chain(matrices), matrices, repeats)
        try:
            with redirect_stderr(StringIO()):  # torch tells there of every kernel that it tries
                rate = _bandwidth(compiled(_Chain(matrices)), matrices, repeats)
            found[f"{name}, compiled"] = rate
        except Exception as error:  # no compiler, or one that it cannot use: of any kind
            failed = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return found, failed


def product_rate(product: Product) -> float:
    """Operations/s of a product as torch computes it, its matrices taken from memory."""
    size = product.width * product.height
    copies = min(product.times, max(2, _FAR_BYTES // (8 * size * FLOAT_BYTES)))
    matrices = [torch.randn(product.height, product.width) for _ in range(copies)]
    rows = torch.randn(product.rows, product.width)

    def run() -> None:
        for matrix in matrices:
            F.linear(rows, matrix)

    return product.flops / product.times * copies / best_seconds(run, 3)


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


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    """Of one call, after one that is not counted.

    Args:
        repeats: at least so many, and more until they took a second together: a limit that was
            measured in an unlucky moment would flatter whoever is held against it.
    """
    run()
    times: list[float] = []
    while len(times) < repeats or (sum(times) < _LEAST_S and len(times) < _MOST_REPEATS):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


class _Chain(torch.nn.Module):
    """Each matrix times as many of the numbers before as it is wide."""

    def __init__(self, matrices: Sequence[Tensor]) -> None:
        super().__init__()
        self.matrices = torch.nn.ParameterList(
            torch.nn.Parameter(matrix, requires_grad=False) for matrix in matrices
        )

    def forward(self, row: Tensor) -> Tensor:
        for matrix in self.matrices:
            row = F.linear(row[:, : matrix.shape[1]], matrix)
        return row


def _bandwidth(run: Callable[[Tensor], Tensor], matrices: Sequence[Tensor], repeats: int) -> float:
    row = torch.randn(1, matrices[0].shape[1])
    size = sum(matrix.numel() for matrix in matrices) * FLOAT_BYTES
    with torch.inference_mode():
        return size / best_seconds(lambda: run(row), repeats)
