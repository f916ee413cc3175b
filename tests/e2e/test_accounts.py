"""Money, as an operator sees it: a team, its key, a question, its bill, the proof, the end."""

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import openai
import pytest

from tests.waiting import wait_until

QUESTION = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def run(system):
    def run(*args):
        result = system.home.pixtral(*args)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture
def team(run):
    """A team of this test's own."""
    name = f"team-{secrets.token_hex(4)}"
    run("teams", "create", name)
    return name


@pytest.fixture
def key(run, team):
    return json.loads(run("keys", "create", "ci", "--team", team, "--json"))


def client_of(system, key, **options):
    return openai.OpenAI(base_url=system.up["base_url"], api_key=key["secret"], **options)


def ask(client, system, **fields):
    fields = {"max_tokens": 4, **fields}
    return client.chat.completions.with_raw_response.create(
        model=system.model, messages=QUESTION, **fields
    )


def test_a_question_is_on_the_bill_to_the_nano_dollar(system, run, team, key):
    client = client_of(system, key)
    costs = [Decimal(ask(client, system).headers["x-request-cost-usd"]) for _ in range(2)]
    bill = json.loads(run("usage", "report", "--team", team, "--json"))
    assert Decimal(bill["total"]["charged_usd"]) == sum(costs) > 0
    assert bill["total"]["requests"] == 2


def test_the_books_balance_with_what_the_engine_counted(system, run, key):
    ask(client_of(system, key), system)

    def settled():
        return json.loads(run("usage", "reconcile", "--json"))["in_flight"] == []

    assert wait_until(settled, 20, 0.5)
    assert "agree" in run("usage", "reconcile")


def test_a_spent_budget_stops_the_team_and_no_client_tries_again(system, run, team, key):
    run("teams", "set-budget", team, "0.000001")
    started = time.monotonic()
    with pytest.raises(openai.RateLimitError, match="budget") as refusal:
        ask(client_of(system, key, max_retries=5), system)
    assert refusal.value.code == "insufficient_quota"
    assert refusal.value.response.headers["x-should-retry"] == "false"
    # Five retries would have waited for longer.
    assert time.monotonic() - started < 3


def test_a_revoked_key_is_dead_within_two_seconds(system, run, key):
    client = client_of(system, key)
    ask(client, system)
    run("keys", "revoke", key["public_id"])
    time.sleep(2)
    with pytest.raises(openai.AuthenticationError):
        ask(client, system)


def test_twenty_repeats_of_one_request_are_answered_alike_and_billed_once(system, run, team, key):
    client = client_of(system, key)
    repeat = {"Idempotency-Key": "the-same-for-all"}

    def once(_):
        return ask(client, system, extra_headers=repeat, temperature=1.0).text

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(once, range(20)))
    assert len(answers) == 1
    assert json.loads(run("usage", "report", "--team", team, "--json"))["total"]["requests"] == 1
