"""`pixtral up` and `pixtral down`: from options to a system that answers, and back to nothing.

Knows the order of things and what to say; how Ray is started and stopped is the cluster's
(``serve_app/cluster.py``), handed in so that tests need none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ops import observe
from ops.edge import Endpoints, wait_ready
from ops.licence import licence
from ops.memory import available_bytes, host_need, size
from ops.preflight import check_memory, check_model, check_ports, check_ranks
from ops.problem import Problem
from ops.progress import Progress, quiet_serve
from ops.settings import Options, resolve
from ops.state import Running, State
from serve_app.config import Config, value_bytes
from serve_app.errors import ApiError
from shards.config import ModelConfig
from shards.plan import rank_parameters

READY_TIMEOUT_S = 120.0
UNTRAINED = (
    "{name} is untrained: its weights are random, so its answers are noise. It shows that the"
    " system works; --model DIR serves a real Pixtral."
)


class Cluster(Protocol):
    """What is asked of ``serve_app.cluster``, a module."""

    def start(self, config: Config, state: Path) -> None: ...
    def deploy(self, config: Config, state: Path) -> None: ...
    def stop(self, config: Config, state: Path) -> None: ...


class Observer(Protocol):
    """What is asked of ``ops.observe``, a module."""

    def check(self) -> object: ...
    def start(self, config: Config, state: Path) -> None: ...
    def stop(self, state: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Up:
    """A system that answers; ``already``: it did so before this call."""

    config: Config
    api_key: str
    already: bool


@dataclass(frozen=True, slots=True)
class Launcher:
    cluster: Cluster
    state: State
    progress: Progress
    make_bundled: Callable[[Path], Path]
    ready_timeout_s: float = READY_TIMEOUT_S
    observer: Observer = observe

    def up(self, options: Options) -> Up:
        """Start everything and return once it generates tokens; a running system is left alone.

        Raises:
            Problem, ConfigError, ClusterError: it could not; nothing is left running.
        """
        with self.state.lock():
            running = self.state.running()
            if running is not None:
                if self._answers(running):
                    return self._found(running, options)
                self.progress.note("what ran before no longer answers; clearing it away")
                self._stop(running.config)
            config = self._prepare(options)
            api_key = self.state.api_key(config)
            self._open_accounts(config, api_key)
            self.state.note_running(config, ready=False)
            try:
                self._start(config)
            except BaseException:  # Ctrl-C too: nothing half-started stays behind
                self.progress.note("not started; stopping what was")
                self._stop(config)
                raise
            self.state.note_running(config, ready=True)
            return Up(config, api_key, already=False)

    def down(self) -> bool:
        """Stop everything; False where nothing ran."""
        with self.state.lock():
            running = self.state.running()
            if running is None:
                return False
            with self.progress.step("down", "stopping tiers and Ray") as step:
                self._stop(running.config)
                step.outcome = "stopped; no process is left"
            return True

    def _prepare(self, options: Options) -> Config:
        with self.progress.step("model", "reading its description") as step:
            config = self._resolve(options)
            model = check_model(config.model.path)
            step.outcome = f"{config.model.name} in {config.model.path}"
        if terms := licence(model.text):
            self.progress.note(terms)
        if config.model.untrained:
            self.progress.note(UNTRAINED.format(name=config.model.name))
        with self.progress.step("plan", "cutting the model, counting bytes and ports") as step:
            if config.observe.enabled:
                self.observer.check()
            check_ports(config)
            check_ranks(config, model)
            check_memory(config, model)
            step.outcome = plan_line(config, model)
        return config

    def _open_accounts(self, config: Config, api_key: str) -> None:
        # Here, as it imports what would slow down every other command.
        from serve_app.accounting.office import prepare

        with self.progress.step("accounts", "bringing their tables up to date") as step:
            try:
                prepare(config, api_key)
            except ApiError as error:
                raise Problem(f"the accounts cannot be used: {error.message}") from error
            step.outcome = "their tables are up to date, the first key is known"

    def _start(self, config: Config) -> None:
        try:
            self._start_tiers(config)
        except Exception as error:
            if not _proxy_died(error):
                raise
            # On a busy machine Serve's proxy can miss its own start deadline.
            self.progress.note("Serve's HTTP proxy died while starting; trying once more")
            self.cluster.stop(config, self.state.folder)
            self._start_again(config)
        if config.observe.enabled:
            with self.progress.step("Prometheus", "starting on loopback") as step:
                self.observer.start(config, self.state.folder)
                step.outcome = f"scrapes this system, http://127.0.0.1:{config.observe.port}"
        with self.progress.step("warm-up", "waiting for a first token of every group") as step:
            self._wait_ready(config)
            step.outcome = "every group generated a token"

    def _wait_ready(self, config: Config) -> None:
        seen = wait_ready(Endpoints.of(config), self.ready_timeout_s)
        if not seen.ready:
            reasons = "; ".join(seen.reasons) or "no reason given"
            raise Problem(f"not ready after {self.ready_timeout_s:.0f} s: {reasons}")

    def _start_tiers(self, config: Config) -> None:
        with self.progress.step("Ray", "starting on loopback") as step:
            self.cluster.start(config, self.state.folder)
            step.outcome = "started, every call needs its token"
        with self.progress.step("tiers", "starting and loading weights") as step:
            with quiet_serve():
                self.cluster.deploy(config, self.state.folder)
            step.outcome = "gateway, preprocessing, vision and decoder run"

    def _start_again(self, config: Config) -> None:
        try:
            self._start_tiers(config)
        except Exception as error:
            if not _proxy_died(error):
                raise
            raise Problem(
                "Serve's HTTP proxy died twice while starting; the machine may be too busy"
            ) from error

    def _found(self, running: Running, options: Options) -> Up:
        config = running.config
        if options.given and (changed := differences(config, self._resolve(options))):
            raise Problem(
                f"already running with other settings ({', '.join(changed)}); `pixtral down` first"
            )
        self._wait_ready(config)
        return Up(config, self.state.api_key(config), already=True)

    def _resolve(self, options: Options) -> Config:
        return resolve(options, self.make_bundled, self.state)

    def _answers(self, running: Running) -> bool:
        return running.ready and wait_ready(Endpoints.of(running.config), timeout_s=2.0).answering

    def _stop(self, config: Config) -> None:
        self.observer.stop(self.state.folder)
        self.cluster.stop(config, self.state.folder)
        self.state.note_stopped()


def plan_line(config: Config, model: ModelConfig) -> str:
    """How the model is cut and what it takes, in one line."""
    ranks = config.decoder.tensor_parallel
    share = rank_parameters(model, ranks)
    width = value_bytes(config.decoder.dtype, config.decoder.device)
    where = "GPUs" if config.decoder.device == "cuda" else "CPU"
    return (
        f"{rank_parameters(model).total / 1e6:,.0f} M parameters, tp {ranks} on {where}: a rank"
        f" holds {size((share.decoder + share.projector) * width)} of weights and"
        f" {size(config.decoder.kv_cache_bytes)} of KV cache; about"
        f" {size(host_need(config, model).total)} of {size(available_bytes())} memory"
    )


def differences(old: Config, new: Config) -> list[str]:
    """``section.key`` of every value that is not the same."""
    before, after = old.model_dump(), new.model_dump()
    return [
        f"{section}.{key}: {before[section][key]} runs, {value} is asked"
        for section, values in after.items()
        for key, value in values.items()
        if before[section][key] != value
    ]


def _proxy_died(error: Exception) -> bool:
    from ray.exceptions import ActorDiedError

    return isinstance(error, ActorDiedError) or isinstance(error.__cause__, ActorDiedError)


def hold(state: State) -> None:
    """Return once somebody else stopped the system (`pixtral down` in another terminal)."""
    while state.running() is not None:
        time.sleep(1.0)
