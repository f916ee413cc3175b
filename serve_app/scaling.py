"""How many replicas a tier has, as the config says it, and the vision tier's own signal.

Tiers have types of their own: a config that sets one of the keys keeps the tier's other defaults.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What a vision replica reports of itself: patches that wait for a pass or are in one.
PENDING_PATCHES = "pending_patches"


class Bounds(BaseModel):
    """How far a tier grows and shrinks, and how soon."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    upscale_delay_s: float = Field(2.0, ge=0)
    downscale_delay_s: float = Field(60.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class Autoscaling(Bounds):
    """By requests in flight per replica."""

    target_ongoing_requests: float = Field(2.0, gt=0)


class GatewayScaling(Autoscaling):
    target_ongoing_requests: float = Field(128.0, gt=0)


class VisionScaling(Bounds):
    """By patches: a picture may have one of them or four thousand. The default is a full pass."""

    target_patches: float = Field(16_384.0, gt=0)


class DecoderScaling(Autoscaling):
    target_ongoing_requests: float = Field(16.0, gt=0)


def replicas_for_patches(
    pending: float, running: float, queued: float, target: float, largest: int = 4096
) -> float:
    """Replicas that leave each of them about ``target`` patches; fractions are rounded up by Serve.

    Args:
        pending: patches at all replicas.
        running: pictures at all replicas.
        queued: pictures that no replica has taken yet. Nobody has said what is in them: they count
            as those at the replicas do on average, and as ``largest`` where there are none.
    """
    each = pending / running if pending > 0 and running > 0 else float(largest)
    return (pending + queued * each) / target


class PatchScaling:
    """Serve's hook (``AutoscalingPolicy``), called about ten times a second in its controller.

    Serve applies delays and bounds afterwards, and wakes a tier from zero by itself, by the
    requests that wait: no replica is there to report anything.
    """

    def __init__(self, target_patches: float) -> None:
        self._target_patches = target_patches

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Replicas wanted and, as Serve asks for it, state to be kept (none)."""
        if not context.running_replicas:
            # Those that are starting have nothing to say yet.
            return context.target_num_replicas, {}
        reported = (context.aggregated_metrics or {}).get(PENDING_PATCHES, {})
        wanted = replicas_for_patches(
            sum(reported.values()),
            context.total_running_requests,
            context.total_queued_requests,
            self._target_patches,
        )
        return wanted, {}
