"""The rules of ``serve_handles.py`` and ``decoder/group.py``, seen from outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from urllib.error import HTTPError

import psutil
import pytest
import ray

from tests.cluster.system import System, picture
from tests.waiting import wait_until


def loaded_libraries(pid: int) -> str:
    with open(f"/proc/{pid}/maps") as maps:
        return maps.read()


def replica(system: System, tier: str) -> psutil.Process:
    """The tier's one process; a replica that is being scaled away may linger for a moment."""
    name = f"ServeReplica:pixtral:{tier}"
    assert wait_until(lambda: len(system.processes(name)) == 1, 60), system.processes(name)
    (process,) = system.processes(name)
    return process


def test_only_tiers_that_compute_load_torch(system: System) -> None:
    assert "libtorch" not in loaded_libraries(replica(system, "DecoderGroup").pid)
    assert "libtorch" not in loaded_libraries(replica(system, "Gateway").pid)
    system.chat([picture(64, 40)], max_tokens=1)
    assert "libtorch" in loaded_libraries(replica(system, "Vision").pid)


def test_each_rank_is_a_process_of_its_own(system: System) -> None:
    pulse = system.group()
    pids = set(pulse["rank_pids"])
    assert len(pids) == system.config.decoder.tensor_parallel
    assert replica(system, "DecoderGroup").pid not in pids
    assert all("libtorch" in loaded_libraries(pid) for pid in pids)


@pytest.mark.parametrize(
    "module",
    [
        "serve_app.app",
        "serve_app.decoder.group",
        "serve_app.decoder.rank",
        "serve_app.gateway.ingress",
        "serve_app.preprocess.tier",
    ],
)
def test_modules_of_tiers_that_do_not_compute_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reference_pickled_outside_rays_counting_fails_loudly(system: System) -> None:
    with pytest.raises(ray.exceptions.OufOfBandObjectRefSerializationException):
        ray.cloudpickle.dumps(ray.put(1))


def test_ranks_have_readable_names(system: System) -> None:
    pulse = system.group()
    names = {entry["name"] for entry in ray.util.list_named_actors(all_namespaces=True)}
    for rank in range(system.config.decoder.tensor_parallel):
        assert f"nano:{pulse['group']}:rank-{rank}" in names


def test_replica_metrics_are_on_rays_endpoint(system: System) -> None:
    system.chat("hello", max_tokens=2)
    for name in (
        "ray_pixtral_decoder_generated_tokens",
        "ray_pixtral_decoder_kv_blocks_free",
        "ray_pixtral_preprocess_duration_seconds_count",
    ):
        assert wait_until(lambda name=name: bool(system.metrics(name)), 60), name  # type: ignore[misc]
    # What was exported first may be from before the answer.
    assert wait_until(lambda: max(system.metrics("ray_pixtral_decoder_generated_tokens")) >= 2, 60)


def test_a_text_whose_tokens_exceed_a_grpc_message_is_refused_with_their_count(
    system: System,
) -> None:
    words = 1_500_000  # 3 bytes a token: beyond gRPC's usual 4 MiB
    with pytest.raises(HTTPError) as refused:
        system.chat("word " * words, max_tokens=1)
    error = json.load(refused.value)["error"]
    assert (refused.value.code, error["code"]) == (400, "context_length_exceeded")
    (tokens,) = re.findall(r"\d{7}", error["message"])
    assert int(tokens) >= words
