"""What ``build`` refuses before any tier starts, and what it promises callers."""

import json

import pytest

from ops import nano
from serve_app.app import application, build, context_tokens
from serve_app.config import ConfigError, load_config
from shards.errors import ModelConfigError, PlanError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return nano.ensure(tmp_path_factory.mktemp("models") / "nano")


def config(folder, **overrides):
    return load_config(None, {"model.path": str(folder), **overrides})


def test_a_context_is_what_the_model_and_the_cache_both_hold(folder):
    large = {"decoder.tensor_parallel": 2, "decoder.kv_cache_bytes": 64 * 2**20}
    # Keys and values, 4 layers, 2 of 4 heads a rank, 32 channels, 4 bytes.
    token_bytes = 2 * 4 * 2 * 32 * 4
    held = 64 * 2**20 // token_bytes
    assert context_tokens(config(folder, **large), nano.NANO) == held
    assert (
        context_tokens(config(folder, **large, **{"model.max_context_tokens": 99}), nano.NANO) == 99
    )
    huge = {"decoder.kv_cache_bytes": 2**40}
    assert context_tokens(config(folder, **huge), nano.NANO) == nano.NANO.text.max_positions
    simulated = {"decoder.simulate": {"kv_blocks": 10}, "decoder.block_size": 8}
    assert context_tokens(config(folder, **simulated), nano.NANO) == 80


def test_there_is_no_system_without_accounts(folder):
    with pytest.raises(ConfigError, match=r"accounting\.database_url"):
        build(config(folder))
    with pytest.raises(ConfigError, match=r"accounting\.pepper_file"):
        build(config(folder, **{"accounting.database_url": "sqlite:////ledger"}))


def test_ranks_that_do_not_cut_the_model(folder):
    with pytest.raises(PlanError, match="3"):
        build(config(folder, **{"decoder.tensor_parallel": 3}))


def test_another_models_tokenizer(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    params = json.loads((folder / "params.json").read_text())
    (tmp_path / "params.json").unlink()
    (tmp_path / "params.json").write_text(json.dumps(params | {"vocab_size": 32000}))
    with pytest.raises(ModelConfigError, match=r"32768 ids .* 32000"):
        build(config(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"decoder.tensor_parallel": 2}, "decoder: tensor_parallel must be 1 with simulate, not 2"),
        ({"decoder.simulate": {"roofline": "cray"}}, r"decoder\.simulate\.roofline: .*'cray'"),
    ],
)
def test_a_simulation_that_makes_no_sense(folder, overrides, reason):
    with pytest.raises(ConfigError, match=reason):
        config(folder, **({"decoder.simulate": {}} | overrides))


PLACED = {"accounting.database_url": "postgresql://u@db/ledger", "accounting.pepper_file": "/p"}


def tiers(application):
    """What Serve was told of each tier: the gateway's deployment holds handles to the others."""
    gateway = application._bound_deployment
    bound = [gateway, *(argument._bound_deployment for argument in gateway.init_args[2:])]
    return {deployment.name: deployment for deployment in bound}


def test_on_one_machine_a_tier_may_run_anywhere(folder):
    for deployment in tiers(build(config(folder, **PLACED))).values():
        assert "resources" not in deployment.ray_actor_options


def test_on_a_cluster_every_tier_asks_for_its_own_nodes(folder):
    found = tiers(build(config(folder, **PLACED, **{"ray.tier_resources": True})))
    assert {
        name: set(deployment.ray_actor_options["resources"]) for name, deployment in found.items()
    } == {
        "Gateway": {"pixtral_gateway"},
        "Preprocess": {"pixtral_preprocess"},
        "Vision": {"pixtral_vision"},
        "DecoderGroup": {"pixtral_decoder"},
    }
    # Serve takes an actor's resources out of the group's first bundle.
    decoder = found["DecoderGroup"]
    first = decoder._replica_config.placement_group_bundles[0]
    assert first["pixtral_decoder"] == decoder.ray_actor_options["resources"]["pixtral_decoder"]


def test_serve_builds_it_from_a_file(folder, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {{path: {folder}, name: ours}}\n"
        "accounting: {database_url: 'postgresql://u@db/ledger', pepper_file: /p}\n"
    )
    gateway = tiers(application({"config_file": str(file)}))["Gateway"]
    assert gateway.init_args[0] == load_config(file)
    with pytest.raises(ConfigError, match=r"not \['config', 'port'\]"):
        application({"config": str(file), "port": "1"})
