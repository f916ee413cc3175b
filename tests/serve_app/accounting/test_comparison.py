"""The comparison of lines with tallies; what it leads to in the store is in test_auditor.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.comparison import Booked, Comparison, Discrepancy, compare
from serve_app.accounting.hold import Charge
from serve_app.accounting.tokens import Kind, Tokens
from shards.tally import Tally


def tally(attempt: int = 1, choice: int = 0, **counts: int) -> Tally:
    return Tally("request", attempt, choice, **counts)


def test_equal_counts_leave_nothing_to_book():
    lines = [
        Booked(1, 0, Kind.TEXT, 12),
        Booked(1, 0, Kind.OUTPUT, 5),
        Booked(1, 1, Kind.OUTPUT, 7),
    ]
    assert compare([tally(text=12, output=5), tally(choice=1, output=7)], lines) == Comparison()


def test_nothing_computed_and_nothing_charged_is_equal():
    assert compare([], []) == Comparison()
    assert compare([tally()], []) == Comparison()


def test_whatever_was_not_charged_is_waste_by_attempt_choice_and_kind():
    lost = tally(attempt=1, text=12, image=42, output=3)
    delivered = tally(attempt=2, cached_text=12, image=42, output=9)
    second = tally(attempt=2, choice=1, output=9)
    lines = [
        Booked(2, 0, Kind.CACHED_TEXT, 12),
        Booked(2, 0, Kind.IMAGE, 42),
        Booked(2, 0, Kind.OUTPUT, 9),
        Booked(2, 1, Kind.OUTPUT, 4),
    ]
    assert compare([second, delivered, lost], lines) == Comparison(
        waste=(
            Charge(1, 0, Tokens(text=12, image=42, output=3)),
            Charge(2, 1, Tokens(output=5)),
        )
    )


def test_waste_that_is_booked_counts_as_booked():
    lines = [Booked(1, 0, Kind.OUTPUT, 4), Booked(1, 0, Kind.OUTPUT, 5, waste=True)]
    assert compare([tally(output=9)], lines) == Comparison()


def test_a_charge_above_the_count_is_a_discrepancy_and_hides_no_waste():
    lines = [Booked(1, 0, Kind.TEXT, 12), Booked(1, 0, Kind.OUTPUT, 10)]
    assert compare([tally(text=12, output=9, cached_text=1)], lines) == Comparison(
        waste=(Charge(1, 0, Tokens(cached_text=1)),),
        discrepancies=(Discrepancy(1, 0, Kind.OUTPUT, booked=10, counted=9),),
    )


def test_a_charge_without_a_tally_has_no_count():
    assert compare([tally(attempt=1, text=3)], [Booked(2, 0, Kind.TEXT, 3)]) == Comparison(
        waste=(Charge(1, 0, Tokens(text=3)),),
        discrepancies=(Discrepancy(2, 0, Kind.TEXT, booked=3, counted=None),),
    )


def test_counts_that_grew_after_waste_was_booked_are_a_discrepancy():
    """Lines are never changed, and there is one for waste of each choice and kind."""
    lines = [Booked(1, 0, Kind.OUTPUT, 4), Booked(1, 0, Kind.OUTPUT, 1, waste=True)]
    assert compare([tally(output=9)], lines) == Comparison(
        discrepancies=(Discrepancy(1, 0, Kind.OUTPUT, booked=5, counted=9),)
    )


counts = st.fixed_dictionaries({}, optional={kind.value: st.integers(0, 5) for kind in Kind})
places = st.tuples(st.integers(1, 3), st.integers(0, 2))


@given(
    st.dictionaries(places, counts),
    st.dictionaries(st.tuples(places, st.sampled_from(Kind)), st.integers(1, 5)),
)
def test_lines_and_waste_are_the_counts_or_it_is_told_where_they_are_not(computed, charged):
    tallies = [tally(*place, **found) for place, found in computed.items()]
    lines = [
        Booked(attempt, choice, kind, tokens)
        for ((attempt, choice), kind), tokens in charged.items()
    ]
    comparison = compare(tallies, lines)
    waste = [
        Booked(charge.attempt, charge.choice, kind, tokens, waste=True)
        for charge in comparison.waste
        for kind, tokens in charge.tokens.items()
        if tokens
    ]
    again = compare(tallies, [*lines, *waste])
    assert again == Comparison(discrepancies=comparison.discrepancies)
    wrong = {(item.attempt, item.choice, item.kind) for item in comparison.discrepancies}
    for place in {*computed, *(place for place, _ in charged)}:
        for kind in Kind:
            of_place = [
                line
                for line in (*lines, *waste)
                if (line.attempt, line.choice, line.kind) == (*place, kind)
            ]
            booked = sum(line.tokens for line in of_place)
            count = computed.get(place, {}).get(kind.value, 0)
            assert (booked != count) == ((*place, kind) in wrong)
            if booked > count:
                assert not any(line.waste for line in of_place), "waste made it worse"
