from __future__ import annotations

import pytest

NEW = {"model": "pixtral", "text_usd": "2", "output_usd": "6"}


async def test_a_price_is_per_million_tokens_and_takes_effect_later(portal):
    made = await portal.made("/admin/prices", {**NEW, "cached_text_usd": "0.5"})
    assert made["effective_at"] == "2026-11-23T00:01:01Z"
    assert (made["text_usd"], made["image_usd"], made["output_usd"]) == ("2", "2", "6")
    assert (made["cached_text_usd"], made["cached_image_usd"]) == ("0.5", "2")
    later = await portal.made(
        "/admin/prices", {**NEW, "tier": "batch", "effective_at": "2027-01-01T00:00:00Z"}
    )
    assert made["created_by"].startswith("key ")
    assert (await portal.got("/admin/prices"))["data"] == [later, made]
    assert (await portal.got("/admin/prices", model="other"))["data"] == []


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"text_usd": "0.0001"}, 400, "text_usd"),
        ({"text_usd": "-1"}, 422, "text_usd"),
        ({"effective_at": "2026-11-23T00:00:59Z"}, 400, "effective_us"),
        ({"tier": "vip"}, 422, "tier"),
        ({"model": ""}, 400, "model"),
    ],
)
async def test_refusals(portal, changes, status, param):
    answer = await portal.admin.post("/admin/prices", json={**NEW, **changes})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_one_version_for_one_instant(portal):
    body = {**NEW, "effective_at": "2027-01-01T00:00:00Z"}
    await portal.made("/admin/prices", body)
    assert (await portal.admin.post("/admin/prices", json=body)).status_code == 409
