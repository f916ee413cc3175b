from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import pytest

from shards.blocks import BlockAllocator
from shards.engine import Engine
from shards.fairness import ACCOUNTS_LIMIT, Account, Shares
from shards.request import GenerationRequest, Tenant
from shards.simulated import scripted
from tests.shards.engine_fixtures import ids, simulated_engine, text_request


def serve(shares: Shares, account: Account, output: int) -> None:
    shares.serve(account, output=output)


# -- counters ---------------------------------------------------------------------------------


def test_service_is_tokens_over_weight_drawn_ones_twice():
    shares = Shares()
    account = shares.account(Tenant("a", weight=4))
    shares.wait(account)
    shares.sit(account, owed=10)
    assert account.committed == 10 / 4
    shares.serve(account, prompt=10)
    shares.serve(account, output=3)
    assert account.counter == account.committed == (10 + 2 * 3) / 4


def test_a_team_that_returns_is_lifted_to_the_least_served_that_wants_more():
    shares = Shares()
    busy, busier, idle = (shares.account(Tenant(team)) for team in "abc")
    for account in (busy, busier):
        shares.wait(account)
    serve(shares, busy, 50)
    serve(shares, busier, 80)
    shares.wait(idle)
    assert idle.counter == 100
    shares.wait_no_more(idle)
    serve(shares, idle, 500)
    shares.wait(idle)
    assert idle.counter == 1100


def test_having_had_the_group_to_oneself_is_no_debt():
    shares = Shares()
    alone, late = shares.account(Tenant("a")), shares.account(Tenant("b"))
    shares.wait(alone)
    serve(shares, alone, 1000)
    shares.wait_no_more(alone)
    shares.wait(late)
    assert late.counter == alone.counter


def test_the_engine_is_parted_by_weight_among_those_present():
    shares = Shares()
    light, heavy, absent = (
        shares.account(Tenant(team, weight)) for team, weight in (("a", 1), ("b", 3), ("c", 9))
    )
    shares.wait(light)
    shares.wait(heavy)
    assert shares.present == light.weight + heavy.weight == 4
    shares.wait(absent)
    assert shares.present == 13


def test_teams_that_want_nothing_are_forgotten_when_they_are_too_many():
    shares = Shares()
    ahead = shares.account(Tenant("ahead"))
    shares.wait(ahead)
    serve(shares, ahead, 5)
    shares.wait_no_more(ahead)
    wanting = shares.account(Tenant("wanting"))
    shares.wait(wanting)
    serve(shares, ahead, 100)
    for number in range(ACCOUNTS_LIMIT):
        shares.account(Tenant(f"team {number}"))
    assert shares.account(Tenant("wanting")) is wanting
    assert shares.account(Tenant("ahead")) is ahead
    assert len(shares._accounts) < ACCOUNTS_LIMIT


# -- in the batch -----------------------------------------------------------------------------


def of_team(request: GenerationRequest, team: str, weight: float = 1) -> GenerationRequest:
    return replace(request, tenant=Tenant(team, weight, team))


def long_answers(name: str, team: str, weight: float = 1, **sampling) -> GenerationRequest:
    sampling = {"max_tokens": 30, "ignore_eos": True} | sampling
    return of_team(text_request(name, "please write", **sampling), team, weight)


def crowded(**limits) -> Engine:
    values = {"max_batch_sequences": 8, "max_step_tokens": 32, "num_blocks": 200} | limits
    values.setdefault("max_context_tokens", 240)
    return simulated_engine(scripted(ids("abc")), **values)[0]


def service(
    engine: Engine, steps: int, refill: Callable[[], None], ended: Counter[str]
) -> Counter[str]:
    """Tokens of each team over so many steps, drawn ones twice; counts the requests that end."""
    served: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    for _ in range(steps):
        refill()
        for delta in engine.step():
            team = delta.request_id.partition(" ")[0]
            served[team] += 2 * len(delta.token_ids)
            fresh = delta.prompt_tokens - delta.cached_tokens
            served[team] += fresh - prompts[delta.request_id]
            prompts[delta.request_id] = fresh
            ended[team] += delta.finish_reason is not None
        engine.check()
    return served


@pytest.mark.parametrize("headroom", [0, 64])
@pytest.mark.parametrize("num_blocks", [200, 60])
@pytest.mark.parametrize(("light", "heavy"), [(1, 3), (1, 1), (2, 1)])
def test_two_teams_that_flood_are_served_by_weight(light, heavy, num_blocks, headroom):
    engine = crowded(num_blocks=num_blocks, headroom_tokens=headroom, max_waiting=1000)
    sent: Counter[str] = Counter()
    ended: Counter[str] = Counter()

    def refill() -> None:
        for team, weight in (("light", light), ("heavy", heavy)):
            while sent[team] - ended[team] < 20:
                length = 10 + 7 * sent[team] % 31
                request = long_answers(f"{team} {sent[team]}", team, weight, max_tokens=length)
                engine.add(request)
                sent[team] += 1

    served = service(engine, 1500, refill, ended)
    assert served["heavy"] / served["light"] == pytest.approx(heavy / light, rel=0.15)


def latency(engine: Engine, name: str) -> int:
    """Steps until a request's answer is whole."""
    engine.add(of_team(text_request(name, "quick", max_tokens=10, ignore_eos=True), "quiet"))
    for step in range(1, 1000):
        ended = [one.request_id for one in engine.step() if one.finish_reason is not None]
        engine.check()
        if name in ended:
            return step
    raise AssertionError("never answered")


@pytest.mark.parametrize("num_blocks", [200, 70])
@pytest.mark.parametrize("answers", [30, 150])
@pytest.mark.parametrize("prompt", ["short", "a very long prompt " * 4])
def test_a_quiet_team_does_not_wait_behind_a_flood(prompt, answers, num_blocks):
    """50 requests of another team, whatever their length, cost it at most 1.5 of its own time."""
    alone = latency(crowded(), "alone")
    engine = crowded(num_blocks=num_blocks)
    for number in range(50):
        request = text_request(f"flood {number}", prompt, max_tokens=answers, ignore_eos=True)
        engine.add(of_team(request, "flood"))
    for _ in range(7):
        engine.step()
    latencies = [latency(engine, f"quiet {number}") for number in range(9)]
    assert median(latencies) <= 2.5 * alone
    assert max(latencies) <= 4 * alone


def test_its_prompt_goes_before_the_flood_s_that_came_first():
    engine = crowded(max_batch_sequences=4, max_step_tokens=8)
    for number in range(3):
        engine.add(of_team(text_request(f"flood {number}", "a" * 40), "flood"))
    engine.step()
    engine.add(of_team(text_request("quiet", "abcdefgh", max_tokens=1), "quiet"))
    assert [delta.request_id for delta in engine.step()] == ["quiet"]


def test_within_a_team_who_came_first_is_served_first():
    engine = crowded(max_batch_sequences=1)
    for number in range(6):
        engine.add(of_team(text_request(f"{number}", max_tokens=2), "a"))
    ends = []
    while engine.has_work:
        ends += [one.request_id for one in engine.step() if one.finish_reason is not None]
    assert ends == [str(number) for number in range(6)]


def test_a_seat_given_up_for_another_team_loses_no_token():
    engine = crowded(max_batch_sequences=2)
    for number in range(3):
        engine.add(long_answers(f"flood {number}", "flood"))
    tokens: Counter[str] = Counter()
    for _ in range(5):
        tokens.update({one.request_id: len(one.token_ids) for one in engine.step()})
    engine.add(of_team(text_request("quiet", max_tokens=3, ignore_eos=True), "quiet"))
    ended = []
    while engine.has_work:
        for delta in engine.step():
            tokens[delta.request_id] += len(delta.token_ids)
            ended += [delta.request_id] if delta.finish_reason is not None else []
    assert engine.stats().put_back_total == 1
    assert ended[0] == "quiet"
    assert {tokens[f"flood {number}"] for number in range(3)} == {30}


def test_a_seat_is_given_up_once_at_most_before_the_next_token():
    """Short questions one after the other do not keep a long prompt from being read."""
    engine = crowded(max_batch_sequences=2, max_step_tokens=4)
    for name in ("first", "second"):
        engine.add(of_team(text_request(name, name * 20, max_tokens=2), "flood"))
    drew: set[str] = set()
    for number in range(12):
        engine.add(of_team(text_request(f"quiet {number}", "ab", max_tokens=1), "quiet"))
        for _ in range(3):
            drew |= {delta.request_id for delta in engine.step()}
            assert engine.stats().put_back_total <= 1 + len(drew & {"first", "second"})
    assert {"first", "second"} & drew


def test_a_prompt_that_choices_share_is_held_once():
    """In each table its 8 blocks would make more than half of the cache."""
    engine = crowded(num_blocks=32, max_step_tokens=64, headroom_tokens=16)
    engine.add(of_team(text_request("a", "a" * 33, max_tokens=20, n=4, ignore_eos=True), "a"))
    for _ in range(3):
        engine.step()
    assert engine.stats().running == 4
    engine.add(of_team(text_request("b", "b" * 10, max_tokens=16, ignore_eos=True), "b"))
    engine.step()
    assert (engine.stats().waiting, engine.stats().put_back_total) == (1, 0)


def test_a_waiting_prompt_is_looked_up_once_a_step(monkeypatch):
    looked_up: list[bytes] = []
    find = BlockAllocator.find

    def watched(blocks: BlockAllocator, name: bytes) -> int | None:
        looked_up.append(name)
        return find(blocks, name)

    monkeypatch.setattr(BlockAllocator, "find", watched)
    engine = crowded(max_batch_sequences=2)
    for name in ("a 1", "a 2"):
        engine.add(long_answers(name, "a"))
    engine.step()
    engine.add(of_team(text_request("a 3", "please write"), "a"))
    engine.add(of_team(text_request("b", "please write"), "b"))
    looked_up.clear()
    engine.step()
    assert engine.stats().put_back_total == 1
    assert len(looked_up) == len(set(looked_up)) > 0


# -- priority ---------------------------------------------------------------------------------


def finishing_order(engine: Engine) -> list[str]:
    order = []
    while engine.has_work:
        order += [one.request_id for one in engine.step() if one.finish_reason is not None]
    return order


def test_a_higher_priority_is_seated_first_whatever_its_team_has_had():
    engine = crowded(max_batch_sequences=1)
    engine.add(of_team(text_request("runs", max_tokens=20, ignore_eos=True), "a"))
    engine.add(of_team(text_request("other", max_tokens=2), "b"))
    engine.add(replace(of_team(text_request("late", max_tokens=2), "a"), priority=1))
    assert finishing_order(engine)[-2:] == ["late", "other"]


def test_no_priority_starves():
    """A flood of high priority that never ends; the low one is answered all the same."""
    engine = crowded(max_batch_sequences=2, max_waiting=1000)
    engine.add(of_team(text_request("runs", max_tokens=4, ignore_eos=True), "b"))
    engine.add(of_team(text_request("runs too", max_tokens=4, ignore_eos=True), "b"))
    engine.add(of_team(text_request("low", max_tokens=2), "a"))
    for number in range(200):
        high = of_team(text_request(f"high {number}", max_tokens=4, ignore_eos=True), "b")
        engine.add(replace(high, priority=2))
    order = finishing_order(engine)
    # Two levels up, after 4 full batches of 2 each.
    assert order.index("low") <= 2 + 2 * 8 + 2


def test_waiting_long_gives_no_team_an_advantage():
    engine = crowded(max_batch_sequences=1, max_waiting=1000)
    for number in range(100):
        engine.add(of_team(text_request(f"flood {number}", max_tokens=2), "flood"))
    for _ in range(60):
        engine.step()
    engine.add(of_team(text_request("quiet", max_tokens=2), "quiet"))
    assert finishing_order(engine).index("quiet") <= 1
