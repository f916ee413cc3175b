"""The cluster that is deployed to, as ``terraform output -json platform`` describes it.

No secrets are in it. Every cloud's module gives the same shape; without a file there is
``NEUTRAL``, a cluster of a few CPU nodes such as kind or minikube make.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ops.problem import Problem

Tier = Literal["head", "gateway", "preprocess", "vision", "decoder"]
TIERS: tuple[Tier, ...] = ("head", "gateway", "preprocess", "vision", "decoder")
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Frozen):
    key: str
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class ServiceAccount(_Frozen):
    """A Kubernetes account that the cloud lets act, without a key, by its name."""

    name: Name
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class Pool(_Frozen):
    """A tier's nodes.

    Attributes:
        gpus, cpu, memory_gib: of one node, as the cloud sells it.
        groups_per_node: of a decoder's node, how many pods share it, each with its part of the
            GPUs; 0 elsewhere.
        local_ssd_path: the node's own fast disk, where there is one.
        raw_disks: whether nobody has joined and mounted it there yet, so that we do.
    """

    machine_type: str
    gpus: int = Field(ge=0)
    min_nodes: int = Field(ge=0)
    max_nodes: int = Field(ge=0)
    groups_per_node: int = Field(0, ge=0)
    selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    cpu: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    local_ssd_path: str | None = None
    raw_disks: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Pool:
        if self.min_nodes > self.max_nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is above max_nodes {self.max_nodes}")
        if self.groups_per_node and self.gpus % self.groups_per_node:
            raise ValueError(
                f"{self.gpus} GPUs cannot be shared by {self.groups_per_node} groups alike"
            )
        if self.local_ssd_path is not None and not self.local_ssd_path.startswith("/"):
            raise ValueError(f"local_ssd_path {self.local_ssd_path!r} is not absolute")
        if self.raw_disks and not (self.local_ssd_path or "").startswith("/mnt/"):
            raise ValueError("raw_disks are mounted below /mnt, and local_ssd_path is not there")
        return self

    @property
    def pods_per_node(self) -> int:
        return max(self.groups_per_node, 1)

    @property
    def gpus_per_pod(self) -> int:
        return self.gpus // self.pods_per_node


class Database(_Frozen):
    host: str
    port: Port
    name: str
    user: str
    tls: Literal["require", "disable"]


class Redis(_Frozen):
    """
    Attributes:
        ca: certificates (PEM) of the authority that signed its own, where it is none that images
            know.
    """

    host: str
    port: Port
    tls: bool
    ca: str | None = None


class Ingress(_Frozen):
    """What makes the internal load balancer.

    Attributes:
        source_cidrs: where its connections come from, if from outside the pods' network.
        namespace: where its controller's pods run, if it is one of pods.
    """

    annotations: dict[str, str]
    class_: str = Field(alias="class")
    source_cidrs: tuple[str, ...] = ()
    namespace: str | None = None


class Platform(_Frozen):
    cloud: Literal["gcp", "aws", "azure", "none"]
    # By the cloud's own name; what makes load balancers asks for it.
    network: str = ""
    cluster: str
    location: str
    namespace: Name = "pixtral"
    weights_uri: str = Field(pattern=r"^(gs|s3|az|file)://[^\s]+$")
    service_accounts: dict[Tier, ServiceAccount]
    pools: dict[Tier, Pool]
    database: Database
    redis: Redis
    nccl_env: dict[str, str] = {}
    ingress: Ingress
    gpu_nodes_max: int = Field(ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Platform:
        for field, given in (("pools", self.pools), ("service_accounts", self.service_accounts)):
            if missing := [tier for tier in TIERS if tier not in given]:
                raise ValueError(f"{field} lacks {', '.join(missing)}")
        for tier in TIERS:
            if tier != "vision" and self.pools[tier].max_nodes < 1:
                raise ValueError(f"pools.{tier}.max_nodes must be at least 1")
        return self

    @property
    def vision_shares(self) -> bool:
        """Whether the vision tier has no nodes of its own, and runs on the decoder's."""
        return self.pools["vision"].max_nodes == 0

    def home(self, tier: Tier) -> Pool:
        """The pool whose nodes a tier runs on."""
        return self.pools["decoder" if tier == "vision" and self.vision_shares else tier]


def load_platform(file: Path | None) -> Platform:
    """Read what ``terraform output -json platform`` printed; without a file, ``NEUTRAL``.

    Raises:
        Problem: unreadable, or not of this shape; the message names every key.
    """
    if file is None:
        return NEUTRAL
    try:
        return Platform.model_validate(json.loads(file.read_text()))
    except OSError as error:
        raise Problem(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'platform'}: {item['msg']}"
            for item in error.errors()
        )
        raise Problem(f"{file}: {problems}") from error
    except ValueError as error:
        raise Problem(f"{file} is no JSON: {error}") from error


def _cpu_pool(cpu: float, memory_gib: float, nodes: int) -> Pool:
    return Pool(
        machine_type="any", gpus=0, min_nodes=1, max_nodes=nodes, cpu=cpu, memory_gib=memory_gib
    )


NEUTRAL = Platform(
    cloud="none",
    cluster="local",
    location="local",
    # A folder that every node has, e.g. by kind's extraMounts.
    weights_uri="file:///models/pixtral",
    service_accounts={tier: ServiceAccount(name=f"pixtral-{tier}") for tier in TIERS},
    pools={
        "head": _cpu_pool(2, 8, 1),
        "gateway": _cpu_pool(2, 8, 2),
        "preprocess": _cpu_pool(4, 8, 8),
        "vision": _cpu_pool(4, 8, 2),
        "decoder": _cpu_pool(8, 16, 1),
    },
    database=Database(host="postgres", port=5432, name="pixtral", user="gateway", tls="disable"),
    redis=Redis(host="redis", port=6379, tls=False),
    ingress=Ingress.model_validate(
        {"class": "nginx", "annotations": {}, "namespace": "ingress-nginx"}
    ),
    gpu_nodes_max=0,
)
