"""The committed schemas: exactly the types in use, of the versions that were published."""

from __future__ import annotations

import pytest

from ops.terraform import bindings, schemas
from ops.terraform.runner import TREE


def test_every_type_in_use_is_described_and_no_other():
    known, used = schemas.providers(), schemas.used_types(TREE)
    kept = {
        (kind, name)
        for each in known.values()
        for kind, types in (("resource", each.resources), ("data", each.data))
        for name in types
    }

    assert used
    assert kept == used, "run python -m ops.terraform extract, then prune"


def test_each_says_where_it_came_from():
    for name, known in schemas.providers().items():
        assert known.wheel is not None
        assert (known.wheel.name, known.wheel.version) == bindings.PUBLISHED[name]
        assert len(known.wheel.sha256) == 64


def test_they_are_cut_from_the_full_ones():
    if not (schemas.FOLDER / "full").is_dir():
        pytest.skip("the full schemas are not extracted here: python -m ops.terraform extract")
    full, used = schemas.providers(schemas.FOLDER / "full"), schemas.used_types(TREE)

    for name, known in schemas.providers().items():
        assert known == schemas.pruned(full[name], used)


def test_a_missing_type_is_named():
    used = {("resource", "google_nonsense"), ("resource", "google_container_cluster")}

    assert schemas.missing(used, schemas.providers()) == ["resource google_nonsense"]


def test_passwords_that_we_give_are_write_only():
    known = schemas.providers()
    user = known["google"].resources["google_sql_user"].attributes
    server = known["azurerm"].resources["azurerm_postgresql_flexible_server"].attributes

    assert user["password_wo"].write_only
    assert server["administrator_password_wo"].write_only
    assert user["password"].sensitive
