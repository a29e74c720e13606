"""What one process counts, read back as Prometheus reads it.

Read next: `src/sageserve/live/gateway/meter.py`; `test_parts.py` for counts of several processes.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sageserve.base.units import SECOND
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.meter import Meter, MicrosHistogram, label_text, show


def read(meter: Meter) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every line by its name and labels, as the official parser reads them."""
    families = text_string_to_metric_families(show(meter.samples()).decode())
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def line(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_a_meter_that_counted_nothing_says_so_and_no_more() -> None:
    empty = {line(name): 0.0 for name in (m.IN_FLIGHT, m.CONNECTIONS, m.WAITING, m.HELD, m.AWAY, m.BYTES)}
    assert read(Meter(["big", "small"], ["fast", "slow"], ["east", "west"])) == empty


def test_requests_are_told_by_model_tier_region_and_status() -> None:
    meter = Meter(["big", "small"], ["fast", "slow"], ["east", "west"])
    meter.lines[1][0].codes = {(1, 200): 3, (0, 503): 2}
    meter.lines[0][1].codes = {(0, 200): 7}
    found = {key: value for key, value in read(meter).items() if key[0] == m.REQUESTS}
    assert found == {
        line(m.REQUESTS, gen_ai_request_model="small", tier="fast", region="west", code="200"): 3,
        line(m.REQUESTS, gen_ai_request_model="small", tier="fast", region="east", code="503"): 2,
        line(m.REQUESTS, gen_ai_request_model="big", tier="slow", region="east", code="200"): 7,
    }


def test_tokens_are_told_by_model_summed_over_its_tiers() -> None:
    meter = Meter(["big", "small"], ["fast", "slow"], ["east"])
    meter.lines[0][0].prompt, meter.lines[0][1].prompt = 100, 20
    meter.lines[1][1].output = 5
    found = {key: value for key, value in read(meter).items() if key[0] == m.TOKENS}
    assert found == {
        line(m.TOKENS, **dict(zip(m.NAMED[m.TOKENS], ("big", "input"), strict=True))): 120,
        line(m.TOKENS, **dict(zip(m.NAMED[m.TOKENS], ("small", "output"), strict=True))): 5,
    }


def test_tokens_of_a_model_that_has_one_tier_are_told_too() -> None:
    meter = Meter(["big"], ["fast"], ["east"])
    meter.lines[0][0].prompt = 3
    assert read(meter)[line(m.TOKENS, **dict(zip(m.NAMED[m.TOKENS], ("big", "input"), strict=True)))] == 3


def test_counters_have_the_labels_of_their_name() -> None:
    meter = Meter(["big"], ["fast"], ["east"])
    for _ in range(3):
        meter.count(m.RETRIES, ("broken",))
    meter.count(m.RETRIES, ("refused",), 2)
    meter.count(m.ABORTED)
    meter.gauges[m.WAITING] = 4
    found = read(meter)
    assert found[line(m.RETRIES, reason="broken")] == 3
    assert found[line(m.RETRIES, reason="refused")] == 2
    assert found[line(m.ABORTED)] == 1
    assert found[line(m.WAITING)] == 4


@given(st.lists(st.floats(0, 200), max_size=30))
def test_a_histogram_is_what_an_obvious_one_says(seconds: list[float]) -> None:
    bounds = (0.01, 0.5, 1.0, 60.0)
    made = MicrosHistogram(bounds)
    for one in seconds:
        made.add(one * SECOND)
    lines = dict(made.samples("x", 'a="b"'))
    for bound in bounds:
        count = sum(one * SECOND <= bound * SECOND for one in seconds)
        assert lines[f'x_bucket{{a="b",le="{bound:g}"}}'] == count, "a bound counts itself"
    assert lines['x_bucket{a="b",le="+Inf"}'] == lines['x_count{a="b"}'] == len(seconds)
    assert lines['x_sum{a="b"}'] == pytest.approx(sum(seconds))
    assert len(lines) == len(bounds) + 3


def test_a_histogram_is_told_once_something_is_in_it() -> None:
    meter = Meter(["big"], ["fast", "slow"], ["east"])
    meter.lines[0][1].ttft.add(0.3 * SECOND)
    found = read(meter)
    labels = {"gen_ai_request_model": "big", "tier": "slow"}
    assert found[line(f"{m.TTFT}_bucket", **labels, le="0.25")] == 0
    assert found[line(f"{m.TTFT}_bucket", **labels, le="0.5")] == 1
    assert found[line(f"{m.TTFT}_sum", **labels)] == pytest.approx(0.3)
    assert found[line(m.LATE, **labels)] == 0
    assert not any(name.startswith((m.DURATION, m.PER_TOKEN)) for name, _ in found)
    assert not any(dict(given_labels).get("tier") == "fast" for _, given_labels in found)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\\"\n'), max_size=20))
def test_labels_may_hold_whatever_a_name_may(model: str) -> None:
    meter = Meter([model], ["fast"], ["east"])
    meter.lines[0][0].codes = {(0, 200): 1}
    assert read(meter)[line(m.REQUESTS, gen_ai_request_model=model, tier="fast", region="east", code="200")] == 1


def test_as_many_labels_as_names() -> None:
    with pytest.raises(ValueError, match="zip"):
        label_text(("a", "b"), ("1",))
