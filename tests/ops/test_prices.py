from __future__ import annotations


def test_a_price_is_added_and_listed(system):
    said = system.said(
        "prices", "add", "pixtral-large", "--input", "2.00", "--output", "$6", "--cached", "0.5"
    )
    assert "pixtral-large  standard  $2.00" in said
    later = system.json(
        "prices", "add", "pixtral-large", "--input", "1", "--output", "3", "--tier", "batch",
        "--effective", "2027-01-01T00:00:00Z",
    )  # fmt: skip
    assert later["effective_at"] == "2027-01-01T00:00:00Z"
    newest, first = system.json("prices", "list", "--model", "pixtral-large")
    assert newest == later
    assert (first["cached_text_usd"], first["cached_image_usd"]) == ("0.5", "0.5")
    assert "2027-01-01 00:00:00" in system.said("prices", "list")


def test_refusals_are_one_line(system):
    add = ("prices", "add", "m", "--output", "1", "--input")
    for words, reason in (
        ((*add, "free"), "--input free"),
        ((*add, "0.0001"), "text_usd"),
        ((*add, "1", "--effective", "tomorrow"), "effective_at"),
        ((*add, "1", "--effective", "2026-11-22T00:00:00Z"), "60 s ahead"),
        ((*add, "1", "--tier", "vip"), "tier"),
    ):
        assert reason in system.refused(*words), words
