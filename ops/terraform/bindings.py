"""Provider schemas rebuilt from the bindings that CDK Terrain publishes for each provider.

A wheel of `cdktn-provider-…` carries, as JavaScript made from the provider's own schema, every
argument and block with its type, whether it is required, optional, computed or write-only, and how
often it may come. binding.py reads one type; this file reads a wheel.

What the bindings do not say: descriptions, defaults, allowed values, conflicts, and what is
sensitive (binding.py lists what we know to be).
"""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ops.problem import Problem
from ops.terraform.binding import Binding, Recursive
from ops.terraform.schemas import AttributeType, BlockSchema, ProviderSchemas, Wheel

# provider -> its bindings: distribution and version on PyPI.
PUBLISHED: Mapping[str, tuple[str, str]] = {
    "aws": ("cdktn-provider-aws", "25.8.1"),
    "azurerm": ("cdktn-provider-azurerm", "18.9.0"),
    "google": ("cdktn-provider-google", "21.1.0"),
    "helm": ("cdktn-provider-helm", "15.1.0"),
    "kubernetes": ("cdktn-provider-kubernetes", "17.1.0"),
}
# Built on the newer plugin framework: what looks like a block in the bindings is an attribute.
_NESTED_ATTRIBUTES = frozenset({"helm"})

_TYPE_NAME = re.compile(r'static tfResourceType = "(\w+)"')
_VERSION = re.compile(r"providerVersion: '([\d.]+)'")
_SOURCE_MAP = "//# sourceMappingURL="

_TOP = ("TerraformResource", "TerraformDataSource", "TerraformProvider")


def extracted(provider: str, wheel: Path) -> ProviderSchemas:
    """Every resource, data source and the configuration of ``provider``, from its bindings.

    Types that contain themselves are left out, and so are ephemeral resources.

    Raises:
        Problem: the wheel is not one of a provider's bindings.
    """
    empty = BlockSchema()
    found: dict[str, dict[str, BlockSchema]] = {base: {} for base in _TOP}
    version = ""
    for source in _sources(wheel):
        # Folders without one hold shared code, no type.
        name = _TYPE_NAME.search(source)
        if name is None:
            continue
        binding = Binding.parsed(source, nested=provider in _NESTED_ATTRIBUTES)
        top = next((cls for cls in binding.classes if binding.classes[cls].base in _TOP), None)
        if top is None:
            continue
        if stated := _VERSION.search(source):
            version = stated[1]
        with suppress(Recursive):
            found[binding.classes[top].base][name[1]] = binding.top(top)
    resources, data, configuration = (found[base] for base in _TOP)
    if not resources or not version:
        raise Problem(f"{wheel.name} holds no bindings of a Terraform provider")
    distribution, released = PUBLISHED[provider]
    return ProviderSchemas(
        version=version,
        wheel=Wheel(
            name=distribution,
            version=released,
            sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        ),
        provider=next(iter(configuration.values()), empty),
        resources={name: _without_dynamic(block) for name, block in sorted(resources.items())},
        data={name: _without_dynamic(block) for name, block in sorted(data.items())},
    )


def downloaded(provider: str, folder: Path) -> Path:
    """The wheel of ``provider``'s bindings, fetched into ``folder`` by pip.

    Raises:
        Problem: pip could not get it; its words are in the message.
    """
    distribution, version = PUBLISHED[provider]
    command = ["-m", "pip", "download", "--no-deps", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, *command, f"{distribution}=={version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(f"pip could not get {distribution} {version}: {done.stderr.strip()}")
    return next(folder.glob(f"{distribution.replace('-', '_')}-{version}-*.whl"))


def _sources(wheel: Path) -> Iterator[str]:
    """One text for each type: big ones are split over several files of a folder."""
    folders: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(wheel) as archive:
        inner = next((name for name in archive.namelist() if name.endswith(".jsii.tgz")), None)
        if inner is None:
            raise Problem(f"{wheel.name} holds no bindings of a Terraform provider")
        with tarfile.open(fileobj=io.BytesIO(archive.read(inner)), mode="r:gz") as package:
            for member in package:
                parts = member.name.split("/")
                if parts[:2] != ["package", "lib"] or not member.name.endswith(".js"):
                    continue
                file = package.extractfile(member)
                if file is not None:
                    folders[parts[2]].append(file.read().decode().partition(_SOURCE_MAP)[0])
    for texts in folders.values():
        yield "\n".join(texts)


def _without_dynamic(block: BlockSchema, *, inside: bool = False) -> BlockSchema:
    """Terraform refuses dynamic types inside collections; there, text stands for them."""
    return BlockSchema(
        attributes={
            name: attribute.model_copy(update={"type": _settled(attribute.type, inside=inside)})
            for name, attribute in block.attributes.items()
        },
        blocks={
            name: nested.model_copy(
                update={
                    "block": _without_dynamic(
                        nested.block, inside=inside or nested.nesting != "single"
                    )
                }
            )
            for name, nested in block.blocks.items()
        },
    )


def _settled(kind: AttributeType, *, inside: bool) -> AttributeType:
    if kind == "dynamic":
        return "string" if inside else kind
    if not isinstance(kind, list):
        return kind
    if kind[0] == "object":
        return ["object", {name: _settled(each, inside=True) for name, each in kind[1].items()}]
    return [kind[0], _settled(kind[1], inside=True)]
