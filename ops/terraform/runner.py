"""Terraform, run offline: the real binary against providers that know only their schemas.

Works on a copy of the `terraform/` tree, so a check leaves nothing behind and a mutation touches
nobody's files. Nothing is downloaded: providers are reached by TF_REATTACH_PROVIDERS, modules are
our own, and the remote state is replaced by a local one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.problem import Problem
from ops.terraform import provider
from ops.terraform.schemas import FOLDER, ProviderSchemas
from ops.terraform.schemas import providers as provider_schemas

TREE = FOLDER.parent
VARIABLES = "example.tfvars"
NOT_INSTALLED = (
    "the terraform binary is not installed: get 1.11 or newer (below 2.0) from"
    " https://developer.hashicorp.com/terraform/install and put it on the PATH"
)

# A plan wants the remote state initialised; this one lies beside the copy.
_LOCAL_STATE = 'terraform {\n  backend "local" {}\n}\n'
_LIMIT_SECONDS = 300


@contextmanager
def providers(schemas: Mapping[str, ProviderSchemas] | None = None) -> Iterator[dict[str, str]]:
    """The environment in which Terraform finds our providers, served while the context lasts.

    Raises:
        Problem: the terraform binary or the schemas are missing.
    """
    if shutil.which("terraform") is None:
        raise Problem(NOT_INSTALLED)
    reattach = {}
    with ExitStack() as servers:
        for name, known in (schemas or provider_schemas()).items():
            port = servers.enter_context(provider.serving(known))
            reattach[f"registry.terraform.io/hashicorp/{name}"] = {
                "Protocol": "grpc",
                "ProtocolVersion": 6,
                "Pid": os.getpid(),
                "Test": True,
                "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
            }
        # Terraform's own variables of the caller (a log level, extra arguments) stay outside.
        environment = {key: value for key, value in os.environ.items() if key[:3] != "TF_"}
        yield environment | {
            "TF_REATTACH_PROVIDERS": json.dumps(reattach),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
            "CHECKPOINT_DISABLE": "1",
        }


@dataclass(frozen=True, slots=True)
class Tree:
    """A copy of a `terraform/` folder that may be initialised and changed."""

    path: Path

    @classmethod
    def copied(cls, source: Path, work: Path) -> Tree:
        """``source``'s configurations under ``work``, replacing what is there."""
        path = work / "terraform"
        shutil.rmtree(path, ignore_errors=True)
        ignored = shutil.ignore_patterns(".terraform*", "schemas", "*.tfstate*")
        shutil.copytree(source, path, ignore=ignored)
        return cls(path)

    @contextmanager
    def mutated(self, file: str, old: str, new: str) -> Iterator[None]:
        """``file`` (relative to the tree) with ``old`` replaced by ``new``, then put back.

        Raises:
            Problem: ``old`` is not exactly once in the file.
        """
        path = self.path / file
        text = path.read_text()
        if (found := text.count(old)) != 1:
            raise Problem(f"{file} has {old!r} {found} times, not once")
        path.write_text(text.replace(old, new))
        try:
            yield
        finally:
            path.write_text(text)


@dataclass(frozen=True, slots=True)
class Terraform:
    """One root (or module) of a tree; ``environment`` is what `providers()` yields."""

    root: Path
    environment: Mapping[str, str]

    def unformatted(self) -> list[str]:
        """Files under the root that `terraform fmt` would change."""
        return self._run("fmt", "-check", "-recursive", "-no-color").stdout.split()

    def init(self) -> None:
        """Links the modules. Raises ``Problem`` with Terraform's words when it cannot."""
        (self.root / "offline_override.tf").write_text(_LOCAL_STATE)
        done = self._run("init", "-no-color", "-input=false")
        if done.returncode:
            raise Problem(f"terraform init failed in {self.root}:\n{done.stdout}{done.stderr}")

    def validate(self) -> list[str]:
        """What is wrong with the configuration, one text each; empty when nothing is."""
        done = self._run("validate", "-json")
        try:
            diagnostics = json.loads(done.stdout)["diagnostics"]
        except ValueError:
            return [f"{done.stdout}{done.stderr}"]
        return [_told(each) for each in diagnostics if each["severity"] == "error"]

    def test(self, *files: str) -> list[str]:
        """What `terraform test` found failing (its output), empty when every run passed.

        No test at all is a failure: it would prove nothing. ``files``: only these, relative to the
        root.
        """
        done = self._run("test", "-no-color", *(f"-filter={file}" for file in files))
        if done.returncode or "Success! 0 passed" in done.stdout:
            return [f"{done.stdout}{done.stderr}"]
        return []

    def plan(self, variables: Path | None = None) -> dict[str, Any]:
        """The plan as JSON. Raises ``Problem`` with Terraform's words when there is none."""
        file = "offline.plan"
        given = [f"-var-file={variables}"] if variables else []
        done = self._run("plan", "-no-color", "-input=false", "-lock=false", f"-out={file}", *given)
        if done.returncode:
            raise Problem(f"terraform plan failed in {self.root}:\n{done.stdout}{done.stderr}")
        shown: dict[str, Any] = json.loads(self._run("show", "-json", file).stdout)
        return shown

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["terraform", *arguments],
            cwd=self.root,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )


def _told(diagnostic: Mapping[str, Any]) -> str:
    place = diagnostic.get("range")
    where = f"{place['filename']}:{place['start']['line']}: " if place else ""
    detail = diagnostic.get("detail")
    return f"{where}{diagnostic['summary']}" + (f": {detail}" if detail else "")
