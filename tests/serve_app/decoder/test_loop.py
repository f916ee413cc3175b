import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from serve_app.decoder.loop import BARRED_LIMIT, CANARY_ID, Emission, EngineLoop, Journal
from shards.detokenizer import Vocabulary
from shards.engine import Engine
from shards.errors import GroupError, RequestError
from shards.request import Delta, FinishReason, GenerationRequest, Sampling
from shards.simulated import SimulatedRunner, hashed
from shards.step import Drawn, StepPlan, nothing
from shards.tally import Tally
from tests.waiting import wait_until

VOCABULARY = Vocabulary(
    pieces=tuple(bytes([i]) for i in range(64)),
    eos_id=2,
    control_ids=frozenset(range(16)),
    answer_ids=frozenset({2, 5}),
    tool_calls_id=5,
    image_id=10,
    image_break_id=14,
    image_end_id=15,
    strip_leading_space=False,
)


def engine_over(runner: SimulatedRunner) -> Engine:
    return Engine(
        runner,
        vocabulary=VOCABULARY,
        num_blocks=64,
        block_size=4,
        max_context_tokens=128,
        max_batch_sequences=8,
        max_step_tokens=32,
        max_waiting=8,
    )


def loop_over(
    runner: SimulatedRunner, emissions: list[Emission], journal: Journal | None = None
) -> tuple[EngineLoop, list[BaseException]]:
    """Not started; and its failures."""
    failures: list[BaseException] = []
    loop = EngineLoop(engine_over(runner), emissions.append, failures.append, 60.0, journal)
    return loop, failures


class Harness:
    """A loop over a simulated runner, with everything it published."""

    def __init__(
        self,
        canary_interval_s: float = 60.0,
        step_delay_s: float = 0.0,
        journal: Journal | None = None,
    ) -> None:
        self.emissions: queue.SimpleQueue[Emission] = queue.SimpleQueue()
        self.failures: list[BaseException] = []
        self.runner = SimulatedRunner(
            hashed(64), num_blocks=64, block_size=4, image_token_id=10, step_delay_s=step_delay_s
        )
        self.engine = engine_over(self.runner)
        self.loop = EngineLoop(
            self.engine, self.emissions.put, self.failures.append, canary_interval_s, journal
        )
        self.loop.start()

    def until_failed(self) -> str:
        assert wait_until(lambda: bool(self.failures), 10, 0.01)
        return str(self.failures[0])

    def until(self, enough: Callable[[list[Delta]], bool]) -> list[Delta]:
        deltas: list[Delta] = []
        while not enough(deltas):
            deltas.extend(self.emissions.get(timeout=10).deltas)
        return deltas


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.loop.close()


def request(request_id: str = "r", max_tokens: int = 5) -> GenerationRequest:
    sampling = Sampling(seed=1, max_tokens=max_tokens, ignore_eos=True)
    return GenerationRequest(request_id, (1, 20, 21), sampling)


def finished(deltas: list[Delta]) -> bool:
    return any(delta.finish_reason is not None for delta in deltas)


def test_a_request_comes_out_whole(harness):
    harness.loop.add(request(), ()).result(10)
    deltas = harness.until(finished)
    assert sum(len(delta.token_ids) for delta in deltas) == 5
    assert deltas[-1].finish_reason is FinishReason.LENGTH


def test_a_real_token_is_generated_before_any_request_and_again_while_idle():
    harness = Harness(canary_interval_s=0.05)
    first = harness.emissions.get(timeout=10)
    second = harness.emissions.get(timeout=10)
    harness.loop.close()
    assert first.stats.unmetered_tokens_total == 2
    assert second.stats.unmetered_tokens_total == 4
    assert second.stats.generated_tokens_total == 0
    assert first.deltas == second.deltas == ()


def test_no_canary_while_callers_prove_life(harness):
    harness.loop.add(request(max_tokens=50), ()).result(10)
    harness.until(finished)
    stats = harness.loop.stats().result(10)
    assert (stats.generated_tokens_total, stats.unmetered_tokens_total) == (50, 2)


def test_refusals_reach_the_caller_and_leave_the_loop_running(harness):
    with pytest.raises(RequestError):
        harness.loop.add(request(max_tokens=1000), ()).result(10)
    harness.loop.add(request(), ()).result(10)
    harness.until(finished)


def test_abort_frees_blocks_and_reports_the_final_counts():
    harness = Harness(step_delay_s=0.01)
    harness.loop.add(request(max_tokens=100), ()).result(10)
    delivered = harness.until(lambda deltas: len(deltas) >= 3)
    harness.loop.abort(["r"]).result(10)
    published = harness.until(finished)
    final = published[-1]
    stats = harness.loop.stats().result(10)
    harness.loop.close()
    assert final.finish_reason is FinishReason.ABORT
    assert final.completion_tokens >= len(delivered)
    assert stats.blocks_free == stats.blocks_total
    assert (stats.running, stats.waiting) == (0, 0)


def test_a_failing_group_is_reported_once_and_later_calls_are_refused(monkeypatch):
    harness = Harness()
    harness.emissions.get(timeout=10)

    def die(plan: StepPlan, meanwhile: Callable[[], None]) -> None:
        raise GroupError("rank 1 died")

    monkeypatch.setattr(harness.runner, "run", die)
    harness.loop.add(request(), ()).result(10)
    assert harness.until_failed() == "rank 1 died"
    assert len(harness.failures) == 1
    with pytest.raises(GroupError):
        harness.loop.add(request("later"), ()).result(10)


def test_calls_after_close_are_answered(harness):
    harness.loop.close()
    with pytest.raises(GroupError, match="stopped"):
        harness.loop.abort(["r"]).result(10)


class Blocking(SimulatedRunner):
    """Computes nothing until it may."""

    def __init__(self) -> None:
        super().__init__(hashed(64), num_blocks=64, block_size=4, image_token_id=10)
        self.computing = threading.Event()
        self.may_go_on = threading.Event()
        self.dies = False

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> list[Drawn]:
        self.computing.set()
        assert self.may_go_on.wait(10)
        if self.dies:
            raise GroupError("rank 1 died")
        return super().run(plan, meanwhile)


def blocked_loop() -> tuple[EngineLoop, Blocking, list[Emission], list[BaseException]]:
    """Its thread is within a step."""
    emissions: list[Emission] = []
    runner = Blocking()
    loop, failures = loop_over(runner, emissions)
    loop.start()
    assert runner.computing.wait(10)
    return loop, runner, emissions, failures


def test_a_caller_who_gives_up_while_a_step_runs_costs_the_others_nothing():
    loop, runner, emissions, failures = blocked_loop()
    assert loop.add(request("given up", max_tokens=100), ()).cancel()
    assert loop.add(request("refused", max_tokens=1000), ()).cancel()
    assert loop.abort(["given up"]).cancel()
    other = loop.add(request("other"), ())
    runner.may_go_on.set()
    other.result(10)

    def ends() -> dict[str, FinishReason]:
        deltas = [delta for emission in emissions for delta in emission.deltas]
        return {one.request_id: one.finish_reason for one in deltas if one.finish_reason}

    assert wait_until(lambda: "other" in ends(), 10, 0.01)
    loop.close()
    assert ends() == {"given up": FinishReason.ABORT, "other": FinishReason.LENGTH}
    assert not failures


def test_a_caller_who_gives_up_before_the_group_is_lost_keeps_no_answer_from_the_others():
    loop, runner, _, failures = blocked_loop()
    runner.dies = True
    assert loop.add(request("given up"), ()).cancel()
    other = loop.add(request("other"), ())
    runner.may_go_on.set()
    with pytest.raises(GroupError, match="rank 1 died"):
        other.result(10)
    assert [str(failure) for failure in failures] == ["rank 1 died"]


def test_canaries_never_reach_a_caller(harness):
    harness.loop.add(request(), ()).result(10)
    assert CANARY_ID not in {delta.request_id for delta in harness.until(finished)}


class Notes:
    """A journal in memory, whose disk can be full."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []
        self.full = False

    def append(self, tallies: Sequence[Tally]) -> None:
        if self.full and tallies:
            raise GroupError("no space left")
        self.tallies += tallies

    def output(self, request_id: str = "r") -> int:
        return max((t.output for t in self.tallies if t.request_id == request_id), default=0)


def test_what_leaves_was_noted_before_it_left():
    notes = Notes()
    harness = Harness(journal=notes)
    noted_at_publish: list[tuple[int, int]] = []

    def publish(emission: Emission) -> None:
        counts = [delta.completion_tokens for delta in emission.deltas]
        noted_at_publish.extend((count, notes.output()) for count in counts)
        harness.emissions.put(emission)

    harness.loop._publish = publish
    harness.loop.add(request(max_tokens=20), ()).result(10)
    harness.until(finished)
    harness.loop.close()
    assert noted_at_publish == [(count, count) for count in range(1, 21)]


def test_the_journals_sum_is_the_counters_and_knows_no_canary():
    notes = Notes()
    harness = Harness(canary_interval_s=0.01, journal=notes)
    harness.loop.add(request(max_tokens=20), ()).result(10)
    harness.until(finished)
    assert wait_until(lambda: harness.loop.stats().result(10).unmetered_tokens_total >= 4, 10, 0.01)
    stats = harness.loop.stats().result(10)
    harness.loop.close()
    assert {tally.request_id for tally in notes.tallies} == {"r"}
    last = notes.tallies[-1]
    assert (last.text, last.output) == (stats.prompt_tokens_total, stats.generated_tokens_total)


def test_what_cannot_be_noted_never_leaves_and_ends_the_group():
    notes = Notes()
    harness = Harness(step_delay_s=0.005, journal=notes)
    harness.loop.add(request(max_tokens=100), ()).result(10)
    harness.until(lambda deltas: len(deltas) >= 3)
    notes.full = True
    assert harness.until_failed() == "no space left"
    published: list[Delta] = []
    while not harness.emissions.empty():
        published += harness.emissions.get().deltas
    assert max((d.completion_tokens for d in published), default=0) <= notes.output()
    with pytest.raises(GroupError):
        harness.loop.add(request("later"), ()).result(10)


def test_when_abort_returns_the_journal_has_the_last_word():
    notes = Notes()
    harness = Harness(step_delay_s=0.005, journal=notes)
    harness.loop.add(request(max_tokens=100), ()).result(10)
    harness.until(lambda deltas: len(deltas) >= 3)
    harness.loop.abort(["unknown", "r"]).result(10)
    noted = list(notes.tallies)
    (last,) = harness.until(finished)[-1:]
    harness.loop.stats().result(10)
    harness.loop.close()
    assert notes.tallies == noted
    assert (noted[-1].text, noted[-1].output) == (last.prompt_tokens, last.completion_tokens)


def test_an_abort_that_overtakes_its_request_ends_it_all_the_same(harness):
    harness.loop.abort(["r"]).result(10)
    harness.loop.add(replace(request(), sampling=Sampling(seed=1, max_tokens=5, n=2)), ()).result(
        10
    )
    deltas = harness.until(finished)
    assert [(d.choice, d.finish_reason, d.prompt_tokens) for d in deltas] == [
        (0, FinishReason.ABORT, 0),
        (1, FinishReason.ABORT, 0),
    ]
    assert not harness.engine.has_work


def test_a_late_abort_of_a_lost_attempt_spares_the_next(harness):
    harness.loop.abort(["r"], 1).result(10)
    harness.loop.add(replace(request(), attempt=2), ()).result(10)
    harness.loop.abort(["r"], 1).result(10)
    assert harness.until(finished)[-1].finish_reason is FinishReason.LENGTH
    harness.loop.add(request(), ()).result(10)
    assert harness.until(finished)[-1].finish_reason is FinishReason.ABORT


def test_only_the_latest_aborts_are_remembered(harness):
    harness.loop.abort([f"r{n}" for n in range(BARRED_LIMIT + 1)]).result(10)
    harness.loop.add(request("r0", max_tokens=1), ()).result(10)
    assert harness.until(finished)[-1].finish_reason is FinishReason.LENGTH
    harness.loop.add(request("r1", max_tokens=1), ()).result(10)
    assert harness.until(finished)[-1].finish_reason is FinishReason.ABORT


class Slow(SimulatedRunner):
    """Notes how many emissions were out when it began to compute, and when it was done."""

    def __init__(self, emitted: Callable[[], int]) -> None:
        super().__init__(hashed(64), num_blocks=64, block_size=4, image_token_id=10)
        self.emitted = emitted
        self.seen: list[tuple[int, int]] = []
        self.dies_at = 1000

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> list[Drawn]:
        if len(self.seen) == self.dies_at:
            raise GroupError("rank 1 died")
        before = self.emitted()
        drawn = super().run(plan, meanwhile)
        self.seen.append((before, self.emitted()))
        return drawn


def slow_loop(
    journal: Journal | None = None,
) -> tuple[EngineLoop, Slow, list[Emission], list[BaseException]]:
    emissions: list[Emission] = []
    runner = Slow(lambda: len(emissions))
    loop, failures = loop_over(runner, emissions, journal)
    return loop, runner, emissions, failures


def test_a_steps_deltas_leave_while_the_next_is_computed_and_the_last_at_once():
    loop, runner, emissions, _ = slow_loop()
    loop.start()
    loop.add(request(max_tokens=4), ()).result(10)
    assert wait_until(lambda: len(emissions) == 1 + 4, 10, 0.01)
    loop.close()
    # The canary, alone; then a step before anything was to be told, and three beside emissions.
    assert runner.seen == [(0, 0), (1, 1), (1, 2), (2, 3), (3, 4)]
    tokens = [len(delta.token_ids) for emission in emissions for delta in emission.deltas]
    assert tokens == [1] * 4


def test_what_was_drawn_before_a_step_failed_is_told():
    notes = Notes()
    loop, runner, emissions, failures = slow_loop(notes)
    runner.dies_at = 4
    loop.start()
    loop.add(request(max_tokens=50), ()).result(10)
    assert wait_until(lambda: bool(failures), 10, 0.01)
    counts = [d.completion_tokens for emission in emissions for d in emission.deltas]
    assert counts == [1, 2, 3]
    assert notes.output() == 3
    assert [str(failure) for failure in failures] == ["rank 1 died"]


def test_a_close_in_mid_answer_keeps_nothing_back():
    loop, _, emissions, _ = slow_loop()
    loop.start()
    loop.add(request(max_tokens=100), ()).result(10)
    assert wait_until(lambda: len(emissions) > 5, 10, 0.001)
    loop.close()
    told = sum(len(delta.token_ids) for emission in emissions for delta in emission.deltas)
    assert told == loop._engine.stats().generated_tokens_total
