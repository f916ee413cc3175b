"""One frozen config for the whole system, read from one YAML file; errors name key and value.

config = load_config(Path("ops/profiles/local.yaml"), {"model.path": "/models/pixtral"})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from serve_app.observing import Observe, Telemetry
from serve_app.preparing import Preprocess
from serve_app.scaling import DecoderScaling, GatewayScaling, VisionScaling
from shards.roofline import ROOFLINES

Device = Literal["cpu", "cuda"]
Kernels = Literal["auto", "torch", "native"]
Dtype = Literal["auto", "float32", "bfloat16"]
# A name or an address, IPv6 in brackets, and perhaps a port.
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def value_bytes(dtype: Dtype, device: Device) -> int:
    """Of one weight or cached value; ``auto`` is bfloat16 on CUDA and float32 on CPU."""
    if dtype == "auto":
        return 2 if device == "cuda" else 4
    return 2 if dtype == "bfloat16" else 4


class ConfigError(Exception):
    """The config file is wrong; the message names the key, the value and what is allowed."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Price(_Frozen):
    """List price in nano-dollars (1e-9 USD) per token: $2.00 per million tokens is 2,000."""

    input_nano_usd_per_token: int = Field(ge=0)
    output_nano_usd_per_token: int = Field(ge=0)


class Model(_Frozen):
    """Which checkpoint is served and under which names.

    ``name`` defaults to the folder's name. ``untrained`` marks random weights, which every surface
    that shows an answer announces. ``price`` defaults by name (see ``accounting/prices.py``).
    """

    path: Path
    name: str = ""
    aliases: tuple[str, ...] = ()
    untrained: bool = False
    max_context_tokens: int | None = Field(None, ge=16)
    default_max_tokens: int = Field(512, ge=1)
    default_temperature: float = Field(0.7, ge=0, le=2)
    price: Price | None = None

    @model_validator(mode="after")
    def _named(self) -> Model:
        if not self.name:
            object.__setattr__(self, "name", self.path.name)
        return self


class Gateway(_Frozen):
    """``port`` 0 is refused: clients need to know it.

    Attributes:
        max_held_body_bytes: of the bodies of all requests that are not answered yet; who sends more
            gets 503, unless he sends text or is alone.
        max_held_patch_bytes: likewise of the patches of their pictures, which lie in the object
            store; with ``preprocess.max_patch_bytes_in_hand`` they must find room there.
    """

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    auth: bool = True
    api_key_file: Path | None = None
    max_body_bytes: int = Field(64 * 2**20, ge=1024)
    max_held_body_bytes: int = Field(256 * 2**20, ge=1024)
    max_held_patch_bytes: int = Field(192 * 2**20, ge=2**20)
    max_pictures: int = Field(32, ge=0)
    max_choices: int = Field(8, ge=1)
    ping_interval_s: float = Field(15.0, gt=0)
    max_ongoing_requests: int = Field(512, ge=1)
    autoscaling: GatewayScaling = GatewayScaling()

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Gateway:
        if not self.auth and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"auth: false is allowed on loopback only, not on host {self.host}")
        return self


class Vision(_Frozen):
    """A picture goes to the replica that may have kept its features. A pass takes four of the
    largest, unless ``max_batch_patches`` is set. ``feature_cache_bytes``: of a replica's memory,
    for pictures that may come again; 0 keeps none, as does ``decoder.prefix_cache: off``."""

    device: Device = "cpu"
    dtype: Dtype = "auto"
    kernels: Kernels = "auto"
    threads: int = Field(1, ge=1)
    num_cpus: float = Field(1.0, gt=0)
    num_gpus: float = Field(0.0, ge=0)
    max_batch_patches: int = Field(16_384, ge=4096)
    feature_cache_bytes: int = Field(64 * 2**20, ge=0)
    max_ongoing_requests: int = Field(128, ge=1)
    autoscaling: VisionScaling = VisionScaling()


class Simulate(_Frozen):
    """An engine over no model, for load tests: all else is real, what it says is made up.

    ``roofline`` names the published model and hardware whose best possible step times are kept
    (``shards/roofline.py``); without one, a step takes none.
    """

    roofline: str | None = None
    kv_blocks: int = Field(65_536, ge=1)

    @field_validator("roofline")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in ROOFLINES:
            raise ValueError(f"must be one of {', '.join(ROOFLINES)}")
        return name


class GrammarCosts(_Frozen):
    """What rank 0 may spend on promised answers: one schema's CPU time and memory, and the cache.

    ``compile_s`` is also how long a request waits while others' schemas are compiled.
    """

    compile_s: float = Field(15.0, gt=0)
    compile_bytes: int = Field(2**30, ge=2**26)
    cache_bytes: int = Field(256 * 2**20, ge=2**20)


class Decoder(_Frozen):
    """One replica is one tensor-parallel group of ``tensor_parallel`` ranks.

    ``journal_folder`` is where rank 0 notes what it computed before anybody hears of it; on each
    node its own, and kept between starts. With ``simulate`` no model is loaded.

    ``kv_cache_bytes`` is per rank. ``token_timeout_s``: a group that has generated nothing for
    this long while it should is not ready. ``collective_timeout_s``: a rank silent for this long
    becomes an error.

    ``prefix_cache``: whether prompts that begin alike are computed once. ``team`` shares within a
    team; ``shared`` across teams, whose answering times then tell what others have sent; pictures'
    features are shared alike, and ``off`` keeps none. ``feature_cache_bytes``: of rank 0's memory,
    for features of pictures that may come again: the vision tier is then not asked for them. All
    that the KV cache has of pictures should fit (Large: 11.5 MB for 1.5 GB). ``max_drafts``: tokens
    guessed ahead from what was said before and verified in one step, which never changes an
    answer; 0 guesses none.

    ``kernels``: what computes a step. ``native``, for float32 on the CPU, is compiled once on each
    machine; ``torch`` needs no compiler; ``auto`` takes native where it can be had.
    ``cuda_graphs``: whether a GPU replays decode steps instead of launching each kernel.
    """

    tensor_parallel: int = Field(1, ge=1)
    journal_folder: Path | None = None
    simulate: Simulate | None = None
    device: Device = "cpu"
    dtype: Dtype = "auto"
    backend: Literal["gloo", "nccl"] = "gloo"
    threads_per_rank: int = Field(1, ge=1)
    cpus_per_rank: float = Field(1.0, gt=0)
    gpus_per_rank: float = Field(0.0, ge=0)
    block_size: int = Field(16, ge=1)
    kv_cache_bytes: int = Field(256 * 2**20, ge=2**20)
    max_batch_sequences: int = Field(16, ge=1)
    max_step_tokens: int = Field(512, ge=16)
    max_waiting: int = Field(128, ge=1)
    prefix_cache: Literal["team", "shared", "off"] = "team"
    feature_cache_bytes: int = Field(64 * 2**20, ge=0)
    max_drafts: int = Field(0, ge=0, le=8)
    kernels: Kernels = "auto"
    cuda_graphs: bool = True
    grammar: GrammarCosts = GrammarCosts()
    token_timeout_s: float = Field(30.0, gt=0)
    collective_timeout_s: float = Field(60.0, gt=0)
    autoscaling: DecoderScaling = DecoderScaling()

    @property
    def features_bytes(self) -> int:
        """What rank 0 may keep: nothing where no prefixes are kept either."""
        return 0 if self.prefix_cache == "off" else self.feature_cache_bytes

    @field_validator("prefix_cache", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """YAML reads a bare ``off`` as false."""
        return "off" if value is False else value

    @model_validator(mode="after")
    def _alone(self) -> Decoder:
        if self.simulate is not None and self.tensor_parallel > 1:
            raise ValueError(
                f"tensor_parallel must be 1 with simulate, not {self.tensor_parallel}: "
                "there is no model to cut"
            )
        return self


class Accounting(_Frozen):
    """The ledger: where it is kept and how it is run.

    Attributes:
        database_url: ``sqlite:////path/to/file`` (one gateway) or ``postgresql://user@host/name``
            (any number). A password belongs into ``database_password_file``.
        pepper_file: 32 random bytes or more, the secret without which stored key digests and
            stored answers are worthless. Kept apart from the database.
        batch_window_ms: how long after a transaction the next one begins at the earliest; what
            comes meanwhile shares it.
        hold_lease_s: a gateway silent for this long is dead, and its requests are settled for it.
        hold_timeout_s: how long a request waits for a database that does not answer.
        audit_patience_s: how long a charge waits for the engine's count of it, which lies with a
            node that is away, before its audit ends unproven.
        keyed_lifetime_s: how long a request with an Idempotency-Key runs on without its client.
        replay_wait_s: how long its repeat waits for an answer that another gateway is giving.
        replay_keep_s: how long its answer can be had again.
        alert_hosts: the hosts that budget alerts may be posted to, as ``host`` (the usual port) or
            ``host:port``; none unless listed (see accounting/webhook.py).
        usd_per_hour: what the machines cost us, for the report that sets it beside the prices.
        metrics_token_file: asked for by ``/metrics`` off loopback.
    """

    database_url: str = ""
    database_password_file: Path | None = None
    pepper_file: Path | None = None
    batch_window_ms: float = Field(5.0, ge=0, le=5)
    hold_lease_s: float = Field(60.0, ge=2)
    hold_timeout_s: float = Field(10.0, gt=0)
    sweep_interval_s: float = Field(3.0, gt=0)
    audit_patience_s: float = Field(600.0, ge=0)
    keyed_lifetime_s: float = Field(600.0, gt=0)
    replay_wait_s: float = Field(30.0, ge=0)
    replay_keep_s: float = Field(86_400.0, gt=0)
    alert_hosts: tuple[str, ...] = ()
    usd_per_hour: Decimal | None = Field(None, ge=0)
    metrics_token_file: Path | None = None

    @field_validator("database_url")
    @classmethod
    def _known_store(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:////", "postgresql://")):
            raise ValueError("must be sqlite:////path or postgresql://user@host/name")
        return url

    @field_validator("alert_hosts")
    @classmethod
    def _bare_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host or host:port in lower case, without a path")
        return hosts

    @property
    def single_gateway(self) -> bool:
        return self.database_url.startswith("sqlite")


class Ray(_Frozen):
    """``num_cpus`` is what tiers book, not cores: a laptop runs all tiers on two.

    ``tier_resources``: each tier runs only on nodes that offer ``pixtral_<tier>``, as those of
    ``pixtral deploy render`` do; off where one node runs everything.
    """

    num_cpus: int = Field(12, ge=1)
    tier_resources: bool = False
    object_store_bytes: int = Field(512 * 2**20, ge=80 * 2**20)
    dashboard_port: int = Field(8265, ge=1, le=65535)
    gcs_port: int = Field(6379, ge=1, le=65535)
    metrics_port: int = Field(8080, ge=1, le=65535)


class Config(_Frozen):
    model: Model
    gateway: Gateway = Gateway()
    preprocess: Preprocess = Preprocess()
    vision: Vision = Vision()
    decoder: Decoder = Decoder()
    accounting: Accounting = Accounting()
    ray: Ray = Ray()
    observe: Observe = Observe()
    telemetry: Telemetry = Telemetry()

    @property
    def vision_features_bytes(self) -> int:
        """What a vision replica may keep: nothing where no prefixes are kept either."""
        return 0 if self.decoder.prefix_cache == "off" else self.vision.feature_cache_bytes

    @property
    def patch_cache_bytes(self) -> int:
        """What a preprocessing replica may keep: likewise."""
        return 0 if self.decoder.prefix_cache == "off" else self.preprocess.patch_cache_bytes

    @model_validator(mode="after")
    def _one_writer_on_sqlite(self) -> Config:
        if self.accounting.single_gateway and self.gateway.autoscaling.max_replicas > 1:
            raise ValueError(
                "gateway.autoscaling.max_replicas: an SQLite ledger takes one gateway; "
                "set accounting.database_url to a PostgreSQL one for more"
            )
        return self


def load_config(file: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a profile and lay ``overrides`` (dotted keys) over it.

    Raises:
        ConfigError: unreadable file, unknown key or bad value.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text()) or {}
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{file}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{file}: a config is a mapping of sections, not {values!r}")
    for dotted, value in (overrides or {}).items():
        *sections, key = dotted.split(".")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return parse_config(values, source=str(file or "config"))


def parse_config(values: Mapping[str, Any], source: str = "config") -> Config:
    """Raises ConfigError naming every bad key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors())
        raise ConfigError(f"{source}: {problems}") from error


def _problem(item: ErrorDetails) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"there is no key {key}"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], dict):
        return f"{key}: {message}" if key else message
    return f"{key}: {message} (got {item['input']!r})"
