"""The system on one screen: four tiers, bound in the order a request meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from serve_app.config import Config, ConfigError, load_config, value_bytes
from serve_app.decoder.group import DecoderGroup
from serve_app.gateway.ingress import Gateway
from serve_app.preprocess.tier import Preprocess
from serve_app.scaling import Autoscaling, Bounds, PatchScaling, VisionScaling
from serve_app.serve_handles import STICKY_ROUTER
from serve_app.tracing import require_exporter
from serve_app.vision import Vision
from shards.config import ModelConfig, read_model_config
from shards.plan import check_cut, kv_blocks, kv_bytes_per_token
from shards.tokenizer import Tokenizer

# How often replicas report their load: the floor of every upscale and downscale delay.
METRICS_INTERVAL_S = 1.0
# One event loop for a replica's transport and its own code: threads for each wait for the other's
# turn. Only for tiers that never compute in their loop.
_ONE_LOOP = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
# A mark more than an amount: a node offers 1 of its tiers, and CPUs and GPUs say how many fit.
TIER_SHARE = 0.001
# Answers are ended, what is not complete is stopped, and what waits is written to the ledger.
GATEWAY_SHUTDOWN_S = 30.0


def build(config: Config) -> Application:
    """Bind the tiers of one model.

    Raises:
        ModelConfigError, PlanError: the model folder or the cut is wrong.
        ConfigError: the accounts have no place.
    """
    if config.telemetry.otlp_endpoint is not None:
        require_exporter()
    model = read_model_config(config.model.path)
    check_cut(model, config.decoder.tensor_parallel)
    Tokenizer.from_folder(config.model.path).require_model(model)
    for key in ("database_url", "pepper_file"):
        if not getattr(config.accounting, key):
            raise ConfigError(f"accounting.{key}: a gateway keeps accounts and needs it")
    max_context_tokens = context_tokens(config, model)

    preprocess = _tier(
        Preprocess,
        config,
        config.preprocess.autoscaling,
        max_ongoing_requests=config.preprocess.max_ongoing_requests,
        max_queued_requests=config.preprocess.max_queued_requests,
        ray_actor_options={
            "num_cpus": config.preprocess.num_cpus,
            "runtime_env": {"env_vars": _ONE_LOOP},
            **_at(config, "preprocess"),
        },
    ).bind(config)
    vision = _tier(
        Vision,
        config,
        config.vision.autoscaling,
        max_ongoing_requests=config.vision.max_ongoing_requests,
        # By picture (``serve_handles.py``): the replica that encoded it has kept its features.
        request_router_config=RequestRouterConfig(request_router_class=STICKY_ROUTER),
        ray_actor_options={
            "num_cpus": config.vision.num_cpus,
            "num_gpus": config.vision.num_gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(config.vision.threads)}},
            **_at(config, "vision"),
        },
    ).bind(config)
    decoder = _tier(
        DecoderGroup,
        config,
        config.decoder.autoscaling,
        max_ongoing_requests=config.decoder.max_batch_sequences + config.decoder.max_waiting,
        ray_actor_options={
            "num_cpus": 0.5,
            "runtime_env": {"env_vars": _ONE_LOOP},
            **_at(config, "decoder"),
        },
        placement_group_bundles=[_replica_bundle(config), *_rank_bundles(config)],
        placement_group_strategy="STRICT_PACK",
        health_check_period_s=2,
        health_check_timeout_s=30,
    ).bind(config, max_context_tokens)
    return _tier(
        Gateway,
        config,
        config.gateway.autoscaling,
        max_ongoing_requests=config.gateway.max_ongoing_requests,
        graceful_shutdown_timeout_s=GATEWAY_SHUTDOWN_S,
        ray_actor_options={
            "num_cpus": 0.5,
            "runtime_env": {"env_vars": _ONE_LOOP},
            **_at(config, "gateway"),
        },
    ).bind(config, max_context_tokens, preprocess, vision, decoder)


def application(args: dict[str, str]) -> Application:
    """What Serve's own config file names as ``serve_app.app:application``.

    Args:
        args: ``config_file`` is a path that every node has.

    Raises:
        ConfigError, ModelConfigError, PlanError: as ``build``; no ``config_file`` is given.
    """
    if set(args) != {"config_file"}:
        raise ConfigError(f"application takes config_file and nothing else, not {sorted(args)}")
    return build(load_config(Path(args["config_file"])))


def context_tokens(config: Config, model: ModelConfig) -> int:
    """Most tokens of prompt and answer: what the model was made for and a group's cache holds."""
    decoder = config.decoder
    if decoder.simulate is not None:
        blocks = decoder.simulate.kv_blocks
    else:
        token_bytes = kv_bytes_per_token(
            model, decoder.tensor_parallel, value_bytes(decoder.dtype, decoder.device)
        )
        blocks = kv_blocks(decoder.kv_cache_bytes, decoder.block_size, token_bytes)
    context = config.model.max_context_tokens or model.text.max_positions
    return min(context, blocks * decoder.block_size)


def _tier(kind: type, config: Config, scaling: Bounds, **options: Any) -> Any:
    return serve.deployment(
        kind,
        name=kind.__name__,
        # Of a call between tiers, the tier's own line tells more than Serve's would.
        logging_config=LoggingConfig(
            encoding=config.telemetry.log_format.upper(), enable_access_log=kind is Gateway
        ),
        autoscaling_config=AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            metrics_interval_s=METRICS_INTERVAL_S,
            look_back_period_s=2 * METRICS_INTERVAL_S,
            **_signal(scaling),
        ),
        **options,
    )


def _signal(scaling: Bounds) -> dict[str, Any]:
    """By what the tier is scaled."""
    if isinstance(scaling, Autoscaling):
        return {"target_ongoing_requests": scaling.target_ongoing_requests}
    assert isinstance(scaling, VisionScaling)
    policy = AutoscalingPolicy(
        policy_function=f"{PatchScaling.__module__}:{PatchScaling.__name__}",
        policy_kwargs={"target_patches": scaling.target_patches},
    )
    return {"policy": policy}


def _at(config: Config, tier: str) -> dict[str, dict[str, float]]:
    """Keep a tier to its own nodes, or what asks for little would take the decoder's place."""
    return {"resources": {f"pixtral_{tier}": TIER_SHARE}} if config.ray.tier_resources else {}


def _replica_bundle(config: Config) -> dict[str, float]:
    return {"CPU": 0.5, **_at(config, "decoder").get("resources", {})}


def _rank_bundles(config: Config) -> list[dict[str, float]]:
    bundle = {"CPU": config.decoder.cpus_per_rank}
    if config.decoder.gpus_per_rank:
        bundle["GPU"] = config.decoder.gpus_per_rank
    return [bundle] * config.decoder.tensor_parallel
