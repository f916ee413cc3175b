"""How long things may take before somebody gives up on them, derived from the bytes to be moved.

Pixtral Large is 248.27 GB in bfloat16. What waits for it, and what does not:

    a fresh node      the pod's init container copies the weights from the bucket to the node's disk
    a fresh group     four ranks read 62 GB each from that disk into their GPUs
    kubelet           waits for init containers for ever; its probes look at Ray and Serve's proxy,
                      never at the model, so no probe can kill a pod that is loading
    Ray's autoscaler  ends a pod that was made and whose Ray did not come up within
                      ``allocate_s``: the one clock that could cut a copy short
    Serve             starts a replica without a time limit
    /readyz           says no until every group has generated a token; load balancers use /healthz

The rates are floors to plan with, not measurements: lower ones mean that something is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_MODEL_BYTES = 248_270_000_000
BUCKET_BYTES_PER_S = 100e6
DISK_BYTES_PER_S = 500e6
# A node is bought and booted, and an image of several gigabytes pulled.
NODE_S = 900.0


@dataclass(frozen=True, slots=True)
class Timings:
    """In seconds.

    Attributes:
        fetch_s: 248.27 GB at 100 MB/s: 2,483 s, 41 minutes.
        load_s: the same from disk at 500 MB/s: 497 s, 8 minutes, all ranks together.
        allocate_s: node and copy and half as much again: 5,074 s. Ray's own default is 3,600 s.
    """

    fetch_s: float
    load_s: float
    allocate_s: int


def timings(model_bytes: int = LARGEST_MODEL_BYTES) -> Timings:
    fetch_s = model_bytes / BUCKET_BYTES_PER_S
    return Timings(
        fetch_s=fetch_s,
        load_s=model_bytes / DISK_BYTES_PER_S,
        allocate_s=round((NODE_S + fetch_s) * 1.5),
    )
