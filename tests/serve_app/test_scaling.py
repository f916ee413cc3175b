"""How many vision replicas are wanted, over Serve's own rules for delays and zero."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from serve_app.scaling import PENDING_PATCHES, PatchScaling, replicas_for_patches

POLICY = AutoscalingPolicy(
    policy_function="serve_app.scaling:PatchScaling", policy_kwargs={"target_patches": 1000}
)


@pytest.mark.parametrize(
    ("pending", "running", "queued", "wanted"),
    [
        (0, 0, 0, 0),
        (1000, 3, 0, 1),
        (1001, 3, 0, 1.001),
        (64, 64, 0, 0.064),  # many pictures, little work
        (4096, 1, 0, 4.096),  # one picture, much work
        (1000, 10, 20, 3),  # those that wait are like those that run
        (0, 0, 2, 8.192),  # unknown: as large as can be
        (0, 3, 1, 4.096),  # at replicas, but not decoded yet
    ],
)
def test_replicas_follow_patches_not_pictures(pending, running, queued, wanted):
    assert replicas_for_patches(pending, running, queued, 1000) == pytest.approx(wanted)


class Controller:
    """What Serve's controller does about a tier, tick by tick."""

    def __init__(self, **config: Any) -> None:
        self.policy = _apply_autoscaling_config(_resolve_policy_callable(POLICY))
        self.config = AutoscalingConfig(policy=POLICY, **config)
        self.replicas = self.config.min_replicas
        self.state: dict[str, Any] = {}

    def tick(self, pending: dict[str, float], running: float, queued: float) -> int:
        """Replicas after a decision; those wanted are there at once."""
        context = SimpleNamespace(
            config=self.config,
            current_num_replicas=self.replicas,
            target_num_replicas=self.replicas,
            running_replicas=list(range(self.replicas)),
            total_num_requests=running + queued,
            total_running_requests=running,
            total_queued_requests=queued,
            aggregated_metrics={PENDING_PATCHES: pending},
            policy_state=self.state,
        )
        wanted, self.state = self.policy(context)
        bounds = self.config
        self.replicas = int(max(bounds.min_replicas, min(bounds.max_replicas, wanted)))
        return int(self.replicas)


def test_a_tier_sleeps_wakes_grows_and_sleeps_again():
    controller = Controller(min_replicas=0, max_replicas=3, upscale_delay_s=0, downscale_delay_s=0)
    assert controller.tick({}, 0, 0) == 0
    assert controller.tick({}, 0, 1) == 1  # Serve's own rule
    assert controller.tick({"a": 700}, 1, 0) == 1
    assert controller.tick({"a": 2100}, 3, 0) == 3
    assert controller.tick({"a": 900, "b": 700, "c": 300}, 4, 0) == 2
    assert controller.tick({"a": 0, "b": 0}, 0, 0) == 1  # never at once from several to none
    assert controller.tick({"a": 0}, 0, 0) == 0


def test_a_replica_that_starts_is_waited_for():
    context = SimpleNamespace(running_replicas=[], target_num_replicas=1)
    assert PatchScaling(1000)(context) == (1, {})


def test_a_controller_that_has_not_our_code_can_run_it():
    """Serve pickles the policy by value; whatever else it needed would have to be installed."""
    serialized = POLICY.get_serialized_policy_def()
    assert serialized is not None
    assert b"pydantic" not in serialized
    assert cloudpickle.loads(serialized)(target_patches=1000)._target_patches == 1000
