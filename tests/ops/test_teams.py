from __future__ import annotations


def test_a_team_from_made_to_limited(system):
    assert system.said("teams", "create", "ads", "--organisation", "acme") == (
        "team acme/ads is made\n"
    )
    said = system.said("teams", "set-budget", "ads", "$1,234.50", "--alert", "80")
    assert "budget a month             $1,234.50\n" in said
    assert "alerts at                  80 %\n" in said
    said = system.said("teams", "set-limits", "acme/ads", "--rpm", "600", "--concurrent", "32")
    assert "weight beside other teams  1\n" in said
    said = system.said("teams", "set-limits", "acme/ads", "--weight", "3")
    assert "weight beside other teams  3\n" in said
    limits = system.json("teams", "set-limits", "ads", "--concurrent", "none")
    assert limits["budget_usd"] == "1234.5"
    assert (limits["requests_per_minute"], limits["max_concurrent"]) == (600, None)
    assert system.json("teams", "set-budget", "ads", "none")["budget_usd"] is None


def test_what_teams_spent(system):
    system.said("teams", "set-budget", "research", "5")
    system.books(lambda books: books.request(system.key, text=1_000_000))
    said = system.said("teams", "list")
    assert [line.split() for line in said.splitlines()] == [
        ["organisation", "team", "budget", "spent", "held", "left", "running"],
        ["default", "default", "-", "$0.00", "$0.00", "-", "0"],
        ["default", "research", "$5.00", "$2.00", "$0.00", "$3.00", "0"],
    ]
    assert system.json("teams", "list")[1]["standing"]["posted_usd"] == "2"


def test_refusals_are_one_line(system):
    for words, reason in (
        (("teams", "create", "research"), "already"),
        (("teams", "set-budget", "nobody", "5"), "there is no team 'nobody'"),
        (("teams", "set-budget", "research", "1.5e3"), "1.5e3: write an amount in dollars"),
        (("teams", "set-limits", "research"), "name a limit"),
        (("teams", "set-limits", "research", "--rpm", "many"), "--rpm many"),
        (("teams", "set-budget", "research", "5", "--alert-url", "https://x.com"), "alert_hosts"),
    ):
        assert reason in system.refused(*words)
    assert "role finance" in system.refused("teams", "create", "x", role="finance")


def test_nobody_there(system):
    system.url = "http://127.0.0.1:9/v1"
    assert "nobody answers at http://127.0.0.1:9" in system.refused("teams", "list")
    system.url = "nonsense"
    assert "no address" in system.refused("teams", "list")
