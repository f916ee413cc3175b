"""What this machine can do, measured in the run that is compared with it.

How fast the best matrix-vector product here reads its matrix, how many operations a second products
at the model's own shapes reach, and, for comparison, how fast memory is summed up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812, the field's name for it

from ops.bench.engine.matvec import MatrixVector
from ops.bench.engine.model import FLOAT_BYTES, Model
from ops.bench.engine.work import Product, products
from shards.host_memory import on_large_pages

# Far beyond every cache. Products rotate matrices of an eighth of it: one small matrix, taken again
# and again, would read none of the memory.
_FAR_BYTES = 2**30
# All calls of one measurement together, unless they are very short.
_LEAST_S = 1.0
_MOST_REPEATS = 200
# Passes of each way to make a matrix-vector product.
_PASSES = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes/s and operations/s.

    Attributes:
        summed: torch's sum over a GiB. No limit: a product that computes less may read faster.
        matvecs: by how they were made, the best pass of each; one that failed is missing.
        gemm: over all products of the picture prompt, each weighted by its operations.
        shapes: operations/s of each product, by name.
        failed: why a way to make products could not be measured.
    """

    summed: float
    matvecs: Mapping[str, float]
    gemm: float
    shapes: Mapping[str, float]
    failed: str = ""

    @property
    def matvec(self) -> float:
        """The best matrix-vector product's best pass."""
        return max(self.matvecs.values())


def measure(
    model: Model, matvec: MatrixVector, tokens: int, patches: int, passes: int = _PASSES
) -> Limits:
    """
    Args:
        tokens, patches: of the prompt whose products are weighed.
    """
    gemm, shapes = gemm_rate(model, tokens, patches)
    return Limits(summed_bandwidth(), matvec.bests(passes), gemm, shapes, matvec.failed)


def summed_bandwidth(repeats: int = 5) -> float:
    values = on_large_pages(torch.empty(_FAR_BYTES // FLOAT_BYTES)).fill_(1)
    return values.numel() * FLOAT_BYTES / best_seconds(values.sum, repeats)


def gemm_rate(model: Model, tokens: int, patches: int) -> tuple[float, dict[str, float]]:
    """Operations/s of a prompt's products, each weighted by its operations; and of each."""
    weighed = products(model.config, tokens, patches)
    shapes = {product.name: product_rate(product) for product in weighed}
    seconds = sum(product.flops / shapes[product.name] for product in weighed)
    return sum(product.flops for product in weighed) / seconds, shapes


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
