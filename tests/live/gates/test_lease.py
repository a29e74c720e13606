"""Laws of leases, held against a gate that was written from the contract.

Read next: `gate.py`, the gate; `test_writer.py`, where leases are in a real Redis.
"""

from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import SECOND
from sageserve.live.gates.lease import decision_name, foreign_holder, lease_of, shown_rate
from tests.live.gates.gate import FIELDS, lets_through

RATES = st.floats(0, 1e6)
NOW = 1_790_000_000_000
EVERY = st.integers(SECOND // 10, 600 * SECOND)


@given(rate=RATES, every=EVERY, later=st.integers(-1000, 1_900_000))
def test_a_lease_lets_its_rate_through_for_three_intervals(rate: float, every: int, later: int) -> None:
    fields = lease_of("pool", rate, NOW, every, "me/1").fields()
    through = lets_through(fields, "pool", NOW + later)
    assert through == (float(shown_rate(rate)) if later < 3 * every // 1000 else 0.0)
    assert rate - 0.001 - rate * 1e-9 <= float(shown_rate(rate)) <= rate


@given(rate=st.floats(1, 1e6), field=st.sampled_from(FIELDS), instead=st.sampled_from(["", "nan", "inf", "-1", "no", None]))
def test_a_gate_is_closed_by_any_field_that_is_missing_or_malformed(rate: float, field: str, instead: str | None) -> None:
    fields = lease_of("pool", rate, NOW, SECOND, "me/1").fields()
    assert lets_through(fields, "pool", NOW) > 0
    del fields[field]
    if instead is not None and field != "decision_id":
        fields[field] = instead
    assert lets_through(fields, "pool", NOW) == 0
    assert lets_through({}, "pool", NOW) == 0


def test_rates_are_decimal_numbers_as_any_language_reads_them() -> None:
    rates = (0, 0.0004, 0.001, 0.5, 1, 10, 1.2345, 100_000.0, 1e6)
    assert [shown_rate(one) for one in rates] == ["0", "0", "0.001", "0.5", "1", "10", "1.234", "100000", "1000000"]


@given(number=st.one_of(st.none(), st.integers(1, 9)), later=st.integers(0, 10_000), mine=st.booleans())
def test_a_key_is_somebody_elses_until_its_end_or_the_clean_end_of_who_wrote_it(
    number: int | None, later: int, mine: bool
) -> None:
    fields = lease_of("pool", 1, NOW, SECOND, decision_name("other", number)).fields()
    held = number is not None and later < 3000 and not mine
    assert foreign_holder(fields, "other" if mine else "me", NOW + later) == ("other" if held else "")


def test_what_is_no_lease_is_never_written_over() -> None:
    fields = lease_of("pool", 1, NOW, SECOND, "other/1").fields()
    assert foreign_holder({}, "me", NOW) == ""
    for field in ("decision_id", "valid_until_unix_ms"):
        assert foreign_holder({**fields, field: "soon" if field.startswith("valid") else ""}, "me", NOW + 99_999)
