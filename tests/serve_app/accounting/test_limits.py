import pytest

from serve_app.accounting.limits import Limits
from serve_app.errors import InvalidRequest

HOOK = "https://hooks.example.com/the-canary-path"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget_nano_usd", -1),
        ("budget_nano_usd", 10**18 + 1),
        ("budget_nano_usd", 1.0),
        ("budget_nano_usd", "5"),
        ("requests_per_minute", 0),
        ("requests_per_minute", True),
        ("input_tokens_per_minute", 0),
        ("output_tokens_per_minute", 10**12 + 1),
        ("max_concurrent", 0),
        ("max_pictures", -1),
        ("weight", 0),
        ("weight", 1001),
        ("weight", 1.5),
        ("alert_percents", (0,)),
        ("alert_percents", (101,)),
        ("alert_percents", (50.0,)),
        ("alert_percents", "80"),
        ("alert_percents", tuple(range(1, 12))),
        ("alert_url", "ftp://hooks.example.com"),
        ("alert_url", 7),
    ],
)
def test_a_wrong_limit_is_refused_by_name(field, value):
    with pytest.raises(InvalidRequest, match=field) as caught:
        Limits(**{field: value})
    assert caught.value.param == field


def test_nothing_is_limited_unless_said():
    values = Limits().columns()
    assert values.pop("alert_percents") == []
    assert set(values.values()) == {None}


def test_zero_is_a_budget_and_a_number_of_pictures():
    limits = Limits(budget_nano_usd=0, max_pictures=0)
    assert (limits.budget_nano_usd, limits.max_pictures) == (0, 0)


def test_percents_are_kept_ascending_and_once():
    assert Limits(alert_percents=(90, 50, 90)).alert_percents == (50, 90)


def test_limits_go_to_a_row_and_back():
    limits = Limits(1, 2, 3, 4, 5, 6, 7, (80, 100), HOOK)
    assert Limits.of_row({**limits.columns(), "name": "more"}) == limits


def test_only_the_named_ones_change():
    limits = Limits(budget_nano_usd=1, requests_per_minute=2)
    changed = limits.changed({"requests_per_minute": None, "alert_percents": [50]})
    assert changed == Limits(budget_nano_usd=1, alert_percents=(50,))
    with pytest.raises(InvalidRequest, match="there is no limit 'budget'") as caught:
        limits.changed({"budget": 1})
    assert caught.value.param == "budget"
    with pytest.raises(InvalidRequest, match="max_concurrent"):
        limits.changed({"max_concurrent": "many"})


def test_a_webhook_is_shown_by_its_host_only():
    limits = Limits(alert_url=HOOK)
    assert limits.shown()["alert_url"] == "https://hooks.example.com"
    assert "canary" not in repr(limits)
    assert Limits().shown()["alert_url"] is None
