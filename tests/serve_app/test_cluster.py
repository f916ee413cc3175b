"""What the environment of every Ray process of ours rules out."""

import os
import subprocess
import sys
import time

import psutil

from ops.bench.ports import free_ports
from serve_app import cluster
from serve_app.config import parse_config

_ASK_RAY = "import ray; ray.get_actor('anybody')"


def test_a_process_is_never_connected_unasked(tmp_path):
    """Threads of Serve outlive a driver's connection and go on calling Ray. Connecting for them to
    a system that is gone would end the whole process after a minute."""
    (port,) = free_ports(1)
    config = parse_config({"model": {"path": str(tmp_path)}, "ray": {"gcs_port": port}})
    result = subprocess.run(
        [sys.executable, "-c", _ASK_RAY],
        env=os.environ | cluster.environment(config, tmp_path),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert "Ray has not been started yet" in result.stderr


def test_what_is_dead_and_not_taken_note_of_has_ended(tmp_path, monkeypatch):
    """A container's first process may be slow to reap what it inherits."""
    config = parse_config({"model": {"path": str(tmp_path)}})
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = [psutil.Process(process.pid)]

    def wait(processes, timeout):
        """Sees the dead as alive, as psutil does where another process is their parent."""
        time.sleep(0.3)
        return [], processes

    monkeypatch.setattr(cluster, "processes", lambda state: found)
    monkeypatch.setattr(psutil, "wait_procs", wait)
    cluster.stop(config, tmp_path)
    assert process.wait(10) != 0
