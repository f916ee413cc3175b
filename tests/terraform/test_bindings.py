"""A schema rebuilt from bindings: on a small type written as the generator writes them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from ops.problem import Problem
from ops.terraform import bindings, schemas
from ops.terraform.schemas import ProviderSchemas

_THING = """
function thingDiskToHclTerraform(struct) {
    const attrs = {
        size: {
            value: cdktn.numberToHclTerraform(struct.size),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
    };
    return Object.fromEntries(Object.entries(attrs));
}
class ThingDiskOutputReference extends cdktn.ComplexObject {
    // size - computed: false, optional: false, required: true
    get size() {
        return this.getNumberAttribute('size');
    }
}
class ThingNodesOutputReference extends cdktn.ComplexObject {
    // address - computed: true, optional: false, required: false
    get address() {
        return this.getStringAttribute('address');
    }
    // zones - computed: true, optional: false, required: false
    get zones() {
        return cdktn.Fn.tolist(this.getListAttribute('zones'));
    }
}
class ThingNodesList extends cdktn.ComplexList {
}
class ThingRuleOutputReference extends cdktn.ComplexObject {
    // ports - computed: false, optional: true, required: false
    get ports() {
        return this.getListAttribute('ports');
    }
}
class ThingRuleList extends cdktn.ComplexList {
}
class Thing extends cdktn.TerraformResource {
    static tfResourceType = "demo_thing";
    constructor(scope, id, config) {
        super(scope, id, { terraformGeneratorMetadata: { providerVersion: '1.2.3' } });
    }
    // name - computed: false, optional: false, required: true
    get name() {
        return this.getStringAttribute('name');
    }
    // labels - computed: true, optional: true, required: false
    get labels() {
        return this.getStringMapAttribute('labels');
    }
    // password_wo - computed: false, optional: true, required: false
    get passwordWo() {
        return this.getStringAttribute('password_wo');
    }
    // auth_string - computed: true, optional: false, required: false
    get authString() {
        return this.getStringAttribute('auth_string');
    }
    // nodes - computed: true, optional: false, required: false
    _nodes = new ThingNodesList(this, "nodes", false);
    // disk - computed: false, optional: false, required: true
    _disk = new ThingDiskOutputReference(this, "disk");
    // rule - computed: false, optional: true, required: false
    _rule = new ThingRuleList(this, "rule", true);
    synthesizeHclAttributes() {
        const attrs = {
            name: {
                value: cdktn.stringToHclTerraform(this._name),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            labels: {
                value: cdktn.hashMapperHcl(cdktn.stringToHclTerraform)(this._labels),
                isBlock: false,
                type: "map",
                storageClassType: "stringMap",
            },
            password_wo: {
                value: this.markWriteOnlyAttribute(cdktn.stringToHclTerraform(this._passwordWo)),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            disk: {
                value: thingDiskToHclTerraform(this._disk.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ThingDiskList",
            },
            rule: {
                value: cdktn.listMapperHcl(thingRuleToHclTerraform, true)(this._rule.internalValue),
                isBlock: true,
                type: "set",
                storageClassType: "ThingRuleList",
            },
        };
        return Object.fromEntries(Object.entries(attrs));
    }
}
//# sourceMappingURL=data:application/json;base64,Y2xhc3MgVGhpbmc=
"""
_ENDLESS = """
class KnotOutputReference extends cdktn.ComplexObject {
    // knot - computed: false, optional: true, required: false
    _knot = new KnotList(this, "knot", false);
}
class KnotList extends cdktn.ComplexList {
}
class Tangle extends cdktn.TerraformResource {
    static tfResourceType = "demo_tangle";
    // knot - computed: false, optional: true, required: false
    _knot = new KnotList(this, "knot", false);
}
"""


def wheel_of(folder: Path, **sources: str) -> Path:
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        for name, text in sources.items():
            entry = tarfile.TarInfo(f"package/lib/{name}/index.js")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    wheel = folder / "demo.whl"
    with zipfile.ZipFile(wheel, "w") as outer:
        outer.writestr("demo/_jsii/provider-demo.jsii.tgz", package.getvalue())
    return wheel


@pytest.fixture
def known(tmp_path: Path) -> ProviderSchemas:
    return bindings.extracted("helm", wheel_of(tmp_path, thing=_THING, tangle=_ENDLESS))


@pytest.fixture
def blocks(tmp_path: Path) -> ProviderSchemas:
    return bindings.extracted("google", wheel_of(tmp_path, thing=_THING, tangle=_ENDLESS))


def test_version_and_origin_are_kept(blocks: ProviderSchemas):
    assert blocks.version == "1.2.3"
    assert blocks.wheel is not None
    assert (blocks.wheel.name, len(blocks.wheel.sha256)) == ("cdktn-provider-google", 64)


def test_arguments(blocks: ProviderSchemas):
    found = blocks.resources["demo_thing"].attributes

    assert (found["name"].type, found["name"].required) == ("string", True)
    assert found["labels"].type == ["map", "string"]
    assert found["labels"].optional
    assert found["labels"].computed
    assert found["password_wo"].write_only
    assert not found["name"].write_only
    assert found["auth_string"].sensitive
    assert not found["name"].sensitive


def test_what_is_only_computed_is_a_list_of_objects(blocks: ProviderSchemas):
    found = blocks.resources["demo_thing"].attributes["nodes"]

    assert found.type == ["list", ["object", {"address": "string", "zones": ["set", "string"]}]]


def test_blocks(blocks: ProviderSchemas):
    found = blocks.resources["demo_thing"].blocks

    assert (found["disk"].nesting, found["disk"].min_items, found["disk"].max_items) == (
        "list",
        1,
        1,
    )
    assert found["disk"].block.attributes["size"].required
    assert (found["rule"].nesting, found["rule"].max_items) == ("set", 0)


def test_newer_providers_have_nested_attributes_instead(known: ProviderSchemas):
    found = known.resources["demo_thing"]

    assert not found.blocks
    assert found.attributes["disk"].nested is not None
    assert found.attributes["rule"].nested is not None
    assert found.attributes["rule"].nested.nesting == "set"


def test_a_type_that_contains_itself_is_left_out(blocks: ProviderSchemas):
    assert set(blocks.resources) == {"demo_thing"}


def test_a_wheel_of_something_else(tmp_path: Path):
    with pytest.raises(Problem, match="holds no bindings"):
        bindings.extracted("google", wheel_of(tmp_path, other="class Nothing {}"))


def test_what_is_written_is_what_is_read(blocks: ProviderSchemas, tmp_path: Path):
    for name in ("demo.json", "demo.json.gz"):
        schemas.save(blocks, tmp_path / name)
        assert schemas.load(tmp_path / name) == blocks


def test_a_file_of_something_else(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"version": 1}')
    with pytest.raises(Problem, match="holds no provider schemas"):
        schemas.load(tmp_path / "x.json")
    with pytest.raises(Problem, match="no provider schemas in"):
        schemas.providers(tmp_path / "nowhere")
