"""Every shipped profile loads, and its numbers fit the machine it is named after."""

import pytest

from ops.settings import PROFILES, Options, resolve
from ops.state import State
from serve_app.config import load_config
from shards.plan import check_cut, kv_bytes_per_token, rank_parameters
from tests.ops.fakes import PIXTRAL_12B, PIXTRAL_LARGE

GIB = 2**30
# What nvidia-smi reports for an A100 80GB, less CUDA contexts, NCCL and activations.
A100_BYTES = 81_920 * 2**20
ON_TOP = 5 * GIB
LARGEST_PATCHES = (1024 // 16) ** 2
# Of a picture of 256 pixels square.
FEW_PATCHES = 256
GPU_PROFILES = {
    "pixtral-12b-1xa100": (PIXTRAL_12B, 1),
    "pixtral-large-bf16-4xa100": (PIXTRAL_LARGE, 4),
}


def test_the_profiles_are_those_told_of():
    assert {file.stem for file in PROFILES.iterdir()} == {"local", *GPU_PROFILES}


@pytest.mark.parametrize("name", ["local", *GPU_PROFILES])
def test_every_profile_loads(name, tmp_path):
    options = Options(config=PROFILES / f"{name}.yaml")
    config = resolve(options, lambda folder: folder, State(tmp_path / "state"))
    assert config.gateway.host == "127.0.0.1"
    assert not config.model.untrained


@pytest.mark.parametrize("name", ["local", *GPU_PROFILES])
def test_what_every_tier_books_fits_what_ray_is_told(name):
    config = load_config(PROFILES / f"{name}.yaml", {"model.path": "x"})
    gateway, groups = config.gateway.autoscaling, config.decoder.autoscaling
    booked = (
        0.5 * gateway.max_replicas
        + config.preprocess.num_cpus * config.preprocess.autoscaling.max_replicas
        + config.vision.num_cpus * config.vision.autoscaling.max_replicas
        + groups.max_replicas
        * (0.5 + config.decoder.tensor_parallel * config.decoder.cpus_per_rank)
    )
    assert booked <= config.ray.num_cpus


@pytest.mark.parametrize("name", ["local", *GPU_PROFILES])
def test_a_vision_replica_is_not_full_of_one_request_nor_of_two_passes(name):
    """Vision's requests are pictures. While one pass is computed the next one gathers. What a full
    replica reports is above what the tier is scaled to, even where pictures are small."""
    config = load_config(PROFILES / f"{name}.yaml", {"model.path": "x"})
    vision = config.vision
    passes = 2 * vision.max_batch_patches / LARGEST_PATCHES
    assert vision.max_ongoing_requests >= 2 * config.gateway.max_pictures
    assert passes <= vision.max_ongoing_requests
    wanted = vision.autoscaling.target_patches
    assert vision.max_batch_patches / 2 <= wanted < vision.max_ongoing_requests * FEW_PATCHES


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_weights_and_cache_fit_the_gpus(name):
    model, gpus = GPU_PROFILES[name]
    config = load_config(PROFILES / f"{name}.yaml")
    decoder = config.decoder
    assert (decoder.device, decoder.backend, decoder.tensor_parallel) == ("cuda", "nccl", gpus)
    check_cut(model, gpus)
    share = rank_parameters(model, gpus)
    # The vision tier shares one of these GPUs.
    weights = 2 * (share.decoder + share.projector + share.vision)
    used = weights + decoder.kv_cache_bytes + ON_TOP
    assert used <= A100_BYTES
    assert used >= 0.95 * A100_BYTES, "memory that was paid for lies idle"
    assert config.model.max_context_tokens is not None
    tokens = decoder.kv_cache_bytes // kv_bytes_per_token(model, gpus, value_bytes=2)
    assert tokens >= config.model.max_context_tokens


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_ranks_never_share_a_gpu_and_vision_finds_room(name):
    config = load_config(PROFILES / f"{name}.yaml")
    assert config.decoder.gpus_per_rank > 0.5
    assert config.decoder.gpus_per_rank + config.vision.num_gpus <= 1


def test_the_licence_stands_where_the_model_is_chosen():
    assert "Mistral Research License" in (PROFILES / "pixtral-large-bf16-4xa100.yaml").read_text()
    assert "Apache-2.0" in (PROFILES / "pixtral-12b-1xa100.yaml").read_text()
