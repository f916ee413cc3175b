import psutil
import pytest

from ops.memory import GIB, available_bytes, host_need
from serve_app.config import load_config, value_bytes
from shards.errors import PlanError
from tests.ops.fakes import PIXTRAL_12B, PIXTRAL_LARGE


def config(**overrides):
    return load_config(None, {"model.path": "x", **overrides})


def test_weights_of_the_released_models_on_cpu():
    """Sizes of facts/model.md: 12,682,739,712 and 124,134,845,824 parameters."""
    for model, parameters in ((PIXTRAL_12B, 12_682_739_712), (PIXTRAL_LARGE, 124_134_845_824)):
        assert host_need(config(), model).weights == 4 * parameters
        halved = config(**{"decoder.dtype": "bfloat16", "vision.dtype": "bfloat16"})
        assert host_need(halved, model).weights == 2 * parameters


def test_a_cut_model_takes_its_norms_on_every_rank_and_its_cache_too():
    whole = host_need(config(), PIXTRAL_12B)
    cut = host_need(config(**{"decoder.tensor_parallel": 4}), PIXTRAL_12B)
    assert 0 < cut.weights - whole.weights < 0.001 * whole.weights
    assert cut.kv_cache == 4 * whole.kv_cache
    assert cut.processes > whole.processes
    parts = (cut.weights, cut.kv_cache, cut.object_store, cut.grammars, cut.processes)
    assert cut.total == sum(parts)


def test_weights_on_a_gpu_take_no_host_memory():
    need = host_need(config(**{"decoder.device": "cuda", "vision.device": "cuda"}), PIXTRAL_LARGE)
    assert (need.weights, need.kv_cache) == (0, 0)


def test_every_replica_that_starts_counts():
    two = config(**{"decoder.autoscaling": {"min_replicas": 2, "max_replicas": 2}})
    one = host_need(config(), PIXTRAL_12B)
    assert host_need(two, PIXTRAL_12B).kv_cache == 2 * one.kv_cache


def test_features_take_memory_unless_none_are_kept():
    kept = config(**{"vision.feature_cache_bytes": GIB})
    off = config(**{"vision.feature_cache_bytes": GIB, "decoder.prefix_cache": "off"})
    none = config(**{"vision.feature_cache_bytes": 0})
    needs = [host_need(each, PIXTRAL_12B).processes for each in (kept, off, none)]
    in_rank_0 = config().decoder.feature_cache_bytes
    assert needs == [needs[1] + GIB + in_rank_0, needs[1], needs[1] + in_rank_0]


def test_what_grammars_may_take_counts_for_every_group():
    costs = {"compile_s": 1, "compile_bytes": 2**27, "cache_bytes": 2**20}
    two = {"decoder.autoscaling": {"min_replicas": 2, "max_replicas": 2}, "decoder.grammar": costs}
    assert host_need(config(**two), PIXTRAL_12B).grammars == 2 * (2 * 2**27 + 2**20)


def test_an_uneven_cut_is_refused():
    with pytest.raises(PlanError):
        host_need(config(**{"decoder.tensor_parallel": 3}), PIXTRAL_12B)


@pytest.mark.parametrize(
    ("dtype", "device", "width"),
    [("auto", "cpu", 4), ("auto", "cuda", 2), ("float32", "cuda", 4), ("bfloat16", "cpu", 2)],
)
def test_bytes_of_a_weight(dtype, device, width):
    assert value_bytes(dtype, device) == width


def cgroup(tmp_path, limit):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\nactive_file 7\n")
    return tmp_path


@pytest.fixture
def machine(monkeypatch):
    class Memory:
        available = 100 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    return Memory.available


def test_a_containers_limit_counts_less_what_it_uses(tmp_path, machine):
    """The page cache is given back: 8 - 3 + 1."""
    assert available_bytes(cgroup(tmp_path, 8 * GIB)) == 6 * GIB
    assert available_bytes(cgroup(tmp_path, GIB)) == 0


def test_without_a_limit_the_machine_counts(tmp_path, machine):
    assert available_bytes(cgroup(tmp_path, "max")) == machine
    assert available_bytes(tmp_path / "no cgroup") == machine
