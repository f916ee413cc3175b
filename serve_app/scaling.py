"""How many replicas a tier has, as the config says it.

Tiers have types of their own: a config that sets one of the keys keeps the tier's other defaults.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Autoscaling(BaseModel):
    """How a tier grows and shrinks, by requests in flight per replica; vision's are pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(2.0, gt=0)
    upscale_delay_s: float = Field(2.0, ge=0)
    downscale_delay_s: float = Field(60.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class GatewayScaling(Autoscaling):
    target_ongoing_requests: float = Field(128.0, gt=0)


class VisionScaling(Autoscaling):
    target_ongoing_requests: float = Field(8.0, gt=0)


class DecoderScaling(Autoscaling):
    target_ongoing_requests: float = Field(16.0, gt=0)
