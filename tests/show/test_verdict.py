"""The verdict: the rule it says it follows, on summaries whose numbers are chosen; sentences say what the numbers say.

Read next: `test_show.py`, `src/sageserve/show/verdict.py`.
"""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.cli.render import totals
from sageserve.data.results.comparison import Bound, BoundLine, Comparison, needed
from sageserve.data.results.summary import ModelSummary, ModelTier, Summary
from sageserve.show.verdict import TOLERANCE, Verdict, verdict, verdict_of
from tests.show.made import TIERS, summary_of

Row = tuple[float, Mapping[str, float]]
KEPT = {"iw-f": 0.99, "iw-n": 0.99, "niw": 1.0}


def compared(rows: Mapping[str, Row], *, seeds: int = 1, bound: float | None = None) -> Comparison:
    """Strategies with GPU-hours and attainment; seeds differ by a thousandth of each."""
    runs = {
        name: {
            seed: summary_of(name, seed, hours * (1 + 0.001 * (seed % 2)), {t: a - 0.0001 * (seed % 2) for t, a in kept.items()})
            for seed in range(1, seeds + 1)
        }
        for name, (hours, kept) in rows.items()
    }
    least = {} if bound is None else dict.fromkeys(range(1, seeds + 1), Bound(bound, {}, {}, {}, (BoundLine(bound, {}),)))
    return Comparison(runs, least)


def judged(rows: Mapping[str, Row], *, seeds: int = 3, bound: float | None = None) -> Verdict:
    return verdict(compared(rows, seeds=seeds, bound=bound))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_cheapest_that_keeps_its_promises_wins(seeds: int) -> None:
    late = {**KEPT, "iw-f": 0.80}
    found = judged({"siloed": (300, KEPT), "reactive": (200, KEPT), "lt-ua": (150, KEPT), "chiron": (100, late)}, seeds=seeds)
    assert found.strategy == "lt-ua"
    assert found.headline.startswith("Use lt-ua: 150.")
    assert "every promise is kept" in found.headline
    assert "-25.0% GPU-hours" in found.saves
    assert "Against reactive" in found.saves
    assert ("one seed" in found.saves) == (seeds == 1)
    assert set(found.others) == {"siloed", "reactive", "chiron"}
    assert "iw-f is 19.0" in found.others["chiron"]
    assert "+100.0%" in found.others["siloed"]


def of_models(summary: Summary, **reached: float) -> Summary:
    """The summary with attainment of iw-f by model."""
    return replace(
        summary,
        models={
            name: ModelSummary(1, 1, 1, 1, summary.gpu_hours, summary.gpu_hours, {"iw-f": ModelTier(1, share, 0.1)})
            for name, share in reached.items()
        },
    )


def test_the_model_that_fails_a_promise_is_named_even_where_the_others_make_up_for_it() -> None:
    kept = summary_of("reactive", 1, 200.0, {**KEPT, "iw-f": 0.97})
    hides = of_models(kept, good=0.99, bad=0.91)
    assert verdict_of(hides).headline.endswith("every promise is kept over all models, but iw-f is missed by bad (91.00%).")
    shown = totals(hides)
    assert shown.startswith("by model      bad keeps 91.00% of iw-f, 95% promised")
    assert "good keeps" not in shown
    assert verdict_of(hides).risks == ("iw-f: kept over all models, but not by bad (91.00%), promised 95%.",)
    late = summary_of("reactive", 1, 200.0, {**KEPT, "iw-f": 0.90})
    assert "it fails with bad (81.00%)." in verdict_of(of_models(late, good=0.99, bad=0.81)).risks[0]
    assert "fails" not in verdict_of(of_models(late, bad=0.89, worse=0.81)).risks[0], "all of them do"


def test_work_owed_at_the_end_counts() -> None:
    comparison = compared({"reactive": (200, KEPT), "lt-ua": (150, KEPT)})
    late = comparison.runs["lt-ua"][1]
    owing = replace(late, after_window=replace(late.after_window, work_gpu_hours=80.0))
    assert verdict(comparison).strategy == "lt-ua"
    found = verdict(Comparison({**comparison.runs, "lt-ua": {1: owing}}, {}))
    assert found.strategy == "reactive"
    alone = verdict_of(owing)
    assert "80.0 owed" in alone.headline
    assert any("80.0 GPU-hours of work were still to do" in risk for risk in alone.risks)


def test_a_tie_goes_to_reactive() -> None:
    assert judged({"siloed": (300, KEPT), "lt-ua": (199.5, KEPT), "reactive": (200, KEPT)}).strategy == "reactive"
    assert judged({"siloed": (300, KEPT), "lt-ua": (190, KEPT), "reactive": (200, KEPT)}).strategy == "lt-ua"


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_promise_all_miss_is_a_risk_and_no_reason_to_pay_more(seeds: int) -> None:
    rows = {"reactive": (200.0, {**KEPT, "iw-f": 0.90}), "siloed": (300.0, {**KEPT, "iw-f": 0.90 + 0.9 * TOLERANCE})}
    found = judged(rows, seeds=seeds, bound=160.0)
    assert found.strategy == "reactive"
    assert "2 of 3 promises are kept (iw-f reaches" in found.headline
    assert "no strategy keeps it" in found.risks[0]
    assert "1.25 times the least that anyone" in found.saves
    much_better = {**rows, "siloed": (300.0, {**KEPT, "iw-f": 0.93})}
    assert judged(much_better, seeds=seeds).strategy == "siloed"


def test_a_gap_within_the_spread_of_seeds_is_no_gap() -> None:
    lows, highs = (0.90, 0.94, 0.92), (0.95, 0.91, 0.935)
    runs = {
        "reactive": {s: summary_of("reactive", s, 200, {**KEPT, "iw-f": value}) for s, value in enumerate(lows)},
        "siloed": {s: summary_of("siloed", s, 300, {**KEPT, "iw-f": value}) for s, value in enumerate(highs)},
    }
    assert verdict(Comparison(runs, {})).strategy == "reactive"


def test_when_none_is_fit_the_least_short_is_named() -> None:
    found = judged({"reactive": (200, {**KEPT, "iw-f": 0.50}), "lt-ua": (100, {**KEPT, "iw-n": 0.80})})
    assert found.strategy == "lt-ua"
    assert found.risks


def test_risks_are_told() -> None:
    found = judged({"reactive": (200, {**KEPT, "iw-f": 0.953}), "siloed": (300, KEPT)})
    assert [risk for risk in found.risks if "little to spare" in risk]
    assert judged({"reactive": (200, KEPT), "siloed": (300, KEPT)}).risks[0].startswith("None found")
    part = replace(summary_of("reactive", 1, 200, KEPT), partial=True)
    assert any("Interrupted" in risk for risk in verdict_of(part).risks)
    runs = {"reactive": {1: summary_of("reactive", 1, 200, KEPT)}, "siloed": {2: summary_of("siloed", 2, 300, KEPT)}}
    found = verdict(Comparison(runs, {}))
    assert any("same seeds" in risk for risk in found.risks)
    assert "no seed in common" in found.saves


SHARE = st.sampled_from([0.5, 0.8, 0.9, 0.94, 0.949, 0.95, 0.96, 1.0])
ROWS = st.dictionaries(
    st.sampled_from(["siloed", "reactive", "lt-i", "lt-ua", "chiron"]),
    st.tuples(st.integers(50, 500).map(float), st.fixed_dictionaries(dict.fromkeys(TIERS, SHARE))),
    min_size=2,
)


@given(ROWS, st.sampled_from([1, 2, 3]))
def test_no_strategy_is_cheaper_and_keeps_as_much(rows: dict[str, Row], seeds: int) -> None:
    comparison = compared(rows, seeds=seeds)
    found = verdict(comparison)
    mine = rows[found.strategy]
    assert set(found.others) == set(rows) - {found.strategy}
    assert found.risks
    for name, (hours, kept) in rows.items():
        better = hours < 0.99 * mine[0] and all(kept[tier] >= mine[1][tier] for tier in TIERS)
        assert not better, (name, found.strategy)


def test_nothing_measured_is_said() -> None:
    summary = summary_of("reactive", 1, 0.0, {})
    assert needed(summary) == 0
    assert "no request to judge it by" in verdict_of(summary).headline


def test_a_single_run_is_not_said_to_save() -> None:
    found = verdict_of(summary_of("lt-ua", 1, 120, KEPT))
    assert found.headline.startswith("lt-ua takes 120.0 GPU-hours")
    assert "another strategy" in found.saves
    assert "--strategies lt-ua,reactive,oracle" in found.recommendation
    assert "SCENARIO" not in found.recommendation
    assert isinstance(verdict_of(summary_of("reactive", 1, 120, KEPT)), Verdict)
