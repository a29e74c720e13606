"""The sustainable load: Erlang C against printed tables, and what must make it larger or smaller.

Read next: `src/sageserve/core/theta.py`.
"""

from math import exp, factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.core.theta import erlang_c, needed, sustainable, waits_longer


@pytest.mark.parametrize(
    ("servers", "offered", "waits"),
    [  # chance to wait, tables of M/M/c in textbooks
        (1, 0.5, 0.5),
        (1, 0.9, 0.9),
        (2, 1.0, 1 / 3),
        (2, 1.5, 0.642857),
        (3, 2.0, 4 / 9),
        (4, 3.0, 0.509434),
        (5, 4.0, 0.554113),
        (10, 8.0, 0.409180),
    ],
)
def test_erlang_c_is_what_tables_say(servers: int, offered: float, waits: float) -> None:
    assert erlang_c(servers, offered / servers) == pytest.approx(waits, abs=1e-6)


@given(st.integers(1, 30), st.floats(0.01, 0.99))
def test_erlang_c_is_its_definition(servers: int, load: float) -> None:
    offered = servers * load
    last = offered**servers / factorial(servers) / (1 - load)
    assert erlang_c(servers, load) == pytest.approx(last / (sum(offered**k / factorial(k) for k in range(servers)) + last))


@given(st.floats(0.01, 0.95), st.floats(0, 10))
def test_one_server_with_exponential_times_waits_as_in_closed_form(load: float, wait: float) -> None:
    found = waits_longer(1, load, wait * 1e6, service_us=1e6, variation=1.0)
    assert found == pytest.approx(load * exp(-(1 - load) * wait))


service = st.floats(1e4, 1e7)
slack = st.floats(0, 1e7)
misses = st.floats(0.001, 0.5)


@given(st.integers(1, 60), service, slack, misses)
def test_more_instances_more_slack_more_misses_or_shorter_work_never_sustain_less(
    servers: int, service_us: float, slack_us: float, share: float
) -> None:
    def load(n: int = 0, *, longer: float = 1.0, wait: float = 1.0, miss: float = 1.0, variation: float = 0.5) -> float:
        found = sustainable(
            servers + n, service_us=service_us * longer, slack_us=slack_us * wait, misses=share * miss, variation=variation
        )
        return found.load

    least = 1e-9
    assert 0 <= load() <= 0.999
    assert load(1) >= load() - least
    assert load(wait=1.5) >= load() - least
    assert load(miss=1.5) >= load() - least
    assert load(longer=1.5) <= load() + least
    assert load(variation=2.0) <= load() + least


@given(st.integers(1, 60), service, slack, misses)
def test_the_promise_holds_at_the_load_and_not_above(servers: int, service_us: float, slack_us: float, share: float) -> None:
    found = sustainable(servers, service_us=service_us, slack_us=slack_us, misses=share)
    assert (found.instances, found.service_us, found.slack_us, found.misses) == (servers, service_us, slack_us, share)
    assert waits_longer(servers, found.load, slack_us, service_us=service_us, variation=0.5) <= share * (1 + 1e-9)
    if found.load < 0.998:
        assert waits_longer(servers, found.load + 1e-3, slack_us, service_us=service_us, variation=0.5) > share


def test_a_target_that_an_idle_instance_misses_sustains_no_load() -> None:
    assert waits_longer(4, 0.01, -1.0, service_us=1e6, variation=0.5) == 1.0
    assert sustainable(4, service_us=1e6, slack_us=-1.0, misses=0.05).load == 0
    assert sustainable(0, service_us=1e6, slack_us=1e6, misses=0.05).load == 0


@given(st.floats(0, 200), service, slack, st.floats(0.005, 0.5))
def test_the_fewest_instances_that_sustain_the_work_are_found(
    busy: float, service_us: float, slack_us: float, share: float
) -> None:
    found = needed(busy, service_us=service_us, slack_us=slack_us, misses=share)
    assert found == sustainable(found.instances, service_us=service_us, slack_us=slack_us, misses=share)
    assert found.instances * found.load >= busy or found.instances == 4_096
    if found.instances > 1:
        fewer = sustainable(found.instances - 1, service_us=service_us, slack_us=slack_us, misses=share)
        assert fewer.instances * fewer.load < busy


def test_work_that_no_number_of_instances_sustains_does_not_go_on_for_ever() -> None:
    assert needed(3.0, service_us=1e6, slack_us=-1.0, misses=0.01).load == 0
