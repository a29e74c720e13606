"""The studies behind the figures of the SageServe paper, and the numbers it published.

A study is a few cases (changes to one scenario) and findings: a comparison of cases beside the published number. Published
numbers are from arXiv 2502.14617 (POMACS 9(3), article 61) and from the notebook released with it; where we have none, none
is shown. Plays nothing. Read next: `cli/reproduce.py`, docs/how-to/reproduce-the-paper.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, assert_never

from sageserve.base.config import Scenario
from sageserve.data.profiles.hardware import is_model, shape
from sageserve.data.results.comparison import held, needed
from sageserve.data.results.summary import Summary

SCENARIO: Final = "o365-paper-peak"
QUICK: Final = (
    # four hours from the morning rise of that Wednesday to its plateau, at the same rate as the whole day has then
    "workload.generate.begins=61h",
    "workload.generate.length=4h",
    "workload.generate.requests=1980000",
)
StudyProfile: TypeAlias = Literal["plain", "paper-signal"]
"""plain: one thing at a time in our scenario. paper-signal: with the signal, marks and forecast of the released code as well."""
_SIGNAL: Final = (
    "signals.kind=kv",
    *(f"strategy.{name}.{mark}" for name in ("reactive", "siloed", "planned") for mark in ("high=0.5", "low=0.25")),
    "strategy.planned.quantile=0.5",
    "strategy.planned.epsilon=1",
    "strategy.siloed.batch_minimum=2",
)
_LIGHT: Final = {True: 316_800, False: 1_600_000}  # requests of the day in the released notebook; of its four quick hours
_A100_START: Final = "fleet.start=46"  # 2.3 times as many, for what an A100 makes less: 20 are full from the first minute
_PAPER: Final = "paper"
_NOTEBOOK: Final = "notebook"
_EITHER: Final = "paper or notebook"  # published, and we do not know in which of the two
_NO_NUMBER: Final = "We have no published number to set ours beside."

Measure: TypeAlias = Literal["hours", "waste", "ttft", "kept", "on time"]
"""GPU-hours and wasted GPU-hours as changes between two cases; TTFT p95 in seconds and attainment of one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a study.

    Args:
        what: for people.
        measure: which number.
        case: of which case.
        base: changes are from this case; empty: the number itself.
        published: what the paper has; a range has two ends; empty: nothing.
        source: where it says so.
    """

    what: str
    measure: Measure
    case: str
    base: str = ""
    published: tuple[float, ...] = ()
    source: str = ""

    def ours(self, cases: Mapping[str, Summary], *, with_owed: bool = False) -> float | None:
        """Our number, from the summaries of the cases; None when a case is missing or there was nothing to measure."""
        if self.case not in cases or (self.base and self.base not in cases):
            return None
        mine = _number(cases[self.case], self.measure, with_owed=with_owed)
        if not self.base or mine is None:
            return mine
        theirs = _number(cases[self.base], self.measure, with_owed=with_owed)
        return mine / theirs - 1 if theirs else None


@dataclass(frozen=True, slots=True)
class Study:
    """A question, the cases that answer it, and what to compare.

    Args:
        question: for people.
        cases: settings by case.
        findings: in order of being shown.
        caveat: what must be known before the numbers are set side by side.
    """

    question: str
    cases: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...]
    caveat: str = ""


def _number(summary: Summary, measure: Measure, *, with_owed: bool) -> float | None:
    fast = min(summary.tiers.values(), key=lambda tier: tier.promise_s)
    batch = max(summary.tiers.values(), key=lambda tier: tier.promise_s)
    match measure:
        case "hours":
            return needed(summary) if with_owed else held(summary)
        case "waste":
            return summary.gpu_hours.waste
        case "ttft":
            return fast.ttft_s.p95
        case "kept":
            return fast.attainment
        case "on time":
            return batch.attainment
        case _:
            assert_never(measure)


def released_memory(scenario: Scenario) -> Scenario:
    """A scenario whose engines hold as few tokens as in the released code, which keeps keys and values of every query head.

    Of a model that shares them among g heads an engine holds a g-th of the tokens: an eighth for llama-2-70b.
    """
    models = dict(scenario.models)
    for name, model in models.items():
        known = shape(name) if is_model(name) else None
        heads = 1 if known is None else known.heads // known.kv_heads
        engines = {
            gpu: one.model_copy(
                update={
                    "kv_tokens": one.kv_tokens // heads,
                    "kv_per_token": None if one.kv_per_token is None else one.kv_per_token * heads,
                }
            )
            for gpu, one in model.engines.items()
        }
        models[name] = model.model_copy(update={"engines": engines})
    return scenario.model_copy(update={"models": models})


def studies(*, quick: bool, profile: StudyProfile = "plain") -> dict[str, Study]:
    """All studies by name; `quick` ones are for the window of `QUICK`.

    With `paper-signal`, the cases are to be played with `released_memory`, too.
    """
    found = _studies(quick=quick)
    if profile == "plain":
        return found
    more = {"unified": (f"workload.generate.requests={_LIGHT[quick]}",), "a100": (_A100_START,)}
    return {
        name: replace(
            study, cases={case: (*_SIGNAL, *changes, *more.get(name, ())) for case, changes in study.cases.items()}, caveat=""
        )
        for name, study in found.items()
    }


def _studies(*, quick: bool) -> dict[str, Study]:
    return {
        "unified": _unified(),
        "strategies": _strategies(),
        "orders": _orders(),
        "bursts": _bursts("2h", 240, 1_980_000) if quick else _bursts("15h", 1440, 10_000_000),
        "mixes": _mixes(),
        "a100": _a100(),
        "trigger": _trigger(),
        "check": _check(),
    }


def _use(strategy: str, *more: str) -> tuple[str, ...]:
    return f"strategy.name={strategy}", *more


def _unified() -> Study:
    return Study(
        "What does one pool for all tiers save against separate pools?",
        {"siloed": _use("siloed"), "reactive": _use("reactive")},
        (
            Finding("GPU-hours, unified vs siloed", "hours", "reactive", "siloed", (-0.345,), _EITHER),
            Finding("siloed: fast tier kept", "kept", "siloed"),
            Finding("unified: fast tier kept", "kept", "reactive"),
        ),
        "Published in instance-hours; every instance here has 8 GPUs, so the ratio is the same.",
    )


def _strategies() -> Study:
    names = ("lt-i", "lt-u", "lt-ua")
    hours, waste = (-0.248, -0.181, -0.228), (-0.69, -0.80, -0.75)
    return Study(
        "What do hourly plans save against thresholds alone?",
        {name: _use(name) for name in ("reactive", *names, "chiron")},
        (
            *(
                Finding(f"GPU-hours, {name} vs reactive", "hours", name, "reactive", (number,), _NOTEBOOK)
                for name, number in zip(names, hours, strict=True)
            ),
            Finding(
                "GPU-hours, lt-ua: range of all three",
                "hours",
                "lt-ua",
                "reactive",
                (-0.242, -0.197),
                _PAPER,
            ),
            *(
                Finding(f"waste, {name} vs reactive", "waste", name, "reactive", (number,), _EITHER)
                for name, number in zip(names, waste, strict=True)
            ),
            Finding("GPU-hours, chiron vs reactive", "hours", "chiron", "reactive"),
            *(Finding(f"{name}: fast tier kept", "kept", name) for name in ("reactive", *names, "chiron")),
        ),
        "The paper forecasts with ARIMA and sees KV use; here the forecaster and the signal are the scenario's.",
    )


def _orders() -> Study:
    orders = ("fcfs", "edf", "pf", "dpa")
    return Study(
        "What does the order of waiting requests do to promises?",
        {order: _use("lt-ua", f"order.kind={order}") for order in orders},
        (
            *(Finding(f"{order}: fast tier kept", "kept", order) for order in orders),
            *(Finding(f"{order}: fast tier TTFT p95", "ttft", order) for order in orders),
            *(Finding(f"{order}: batch work on time", "on time", order) for order in orders),
        ),
        _NO_NUMBER,
    )


def _bursts(at: str, minutes: int, requests: int) -> Study:
    usual, more = 0.72, 7 * 20 / minutes  # 20 minutes at eight times the rate are requests on top of the usual ones, about
    total = 1 + usual * more
    changes = (
        f"workload.generate.bursts=[{{at: {at}, length: 20m, factor: 8, tiers: [iw-f, iw-n]}}]",
        f"workload.generate.requests={round(requests * total)}",
        f"workload.generate.interactive={usual * (1 + more) / total:.4f}",
    )
    names = ("reactive", "lt-i", "lt-ua")
    return Study(
        "Who copes with eight times the rate for 20 minutes?",
        {name: _use(name, *changes) for name in names},
        (
            *(Finding(f"{name}: fast tier kept", "kept", name) for name in names),
            *(Finding(f"{name}: fast tier TTFT p95", "ttft", name) for name in names),
            Finding("GPU-hours, lt-ua vs reactive", "hours", "lt-ua", "reactive"),
        ),
        _NO_NUMBER,
    )


def _mixes() -> Study:
    shares = {"9:1": ("90%", -0.263), "1:1": ("50%", -0.22)}
    return Study(
        "Do the savings depend on how much work is interactive?",
        {
            f"{name} {mix}": _use(name, f"workload.generate.interactive={share}")
            for mix, (share, _) in shares.items()
            for name in ("reactive", "lt-ua")
        },
        tuple(
            Finding(
                f"GPU-hours at {mix}, lt-ua vs reactive",
                "hours",
                f"lt-ua {mix}",
                f"reactive {mix}",
                (number,),
                _EITHER,
            )
            for mix, (_, number) in shares.items()
        ),
    )


def _a100() -> Study:
    # 600 VMs: an A100 does half of an H100's work or less. The price, of an ND96amsr_A100_v4, changes no GPU-hours.
    stock = "{h100-80gb: null, a100-80gb: {gpus: 4800, price: {on_demand: 32.77/h}}}"
    hardware = (*(f"regions.{name}.gpus={stock}" for name in ("eastus", "centralus", "westus")), "fleet.gpu=a100-80gb")
    room = "fleet.maximum=120"
    return Study(
        "Do the savings hold on A100s?",
        {name: _use(name, *hardware, room) for name in ("reactive", "lt-ua")},
        (Finding("GPU-hours, lt-ua vs reactive", "hours", "lt-ua", "reactive", (-0.282,), _EITHER),),
        "Endpoints may have 120 instances instead of 60, because A100s are slower.",
    )


def _trigger() -> Study:
    hours, ttft = {"2": 267.5, "5": 233.0, "10": 223.0}, {"2": 10.5, "5": 16.7, "10": 20.9}
    return Study(
        "How far above its forecast must demand be before lt-ua passes its plan?",
        {factor: _use("lt-ua", f"strategy.planned.above={factor}") for factor in hours},
        (
            *(
                Finding(f"GPU-hours, {factor}× vs 5×", "hours", factor, "5", (hours[factor] / hours["5"] - 1,), _EITHER)
                for factor in ("2", "10")
            ),
            *(Finding(f"TTFT, {factor}×", "ttft", factor, "", (ttft[factor],), _EITHER) for factor in ttft),
        ),
        "Published: p90 TTFT and 267.5, 233 and 223 instance-hours. Ours: p95 of the fast tier. Equal numbers: the "
        "trigger decided nothing.",
    )


def _check() -> Study:
    periods = ("15s", "1m", "5m")
    return Study(
        "What if the rule looks less often?",
        {f"{name} {period}": _use(name, f"strategy.check={period}") for name in ("reactive", "lt-ua") for period in periods},
        (
            *(
                Finding(f"GPU-hours, {name} every {period} vs 15s", "hours", f"{name} {period}", f"{name} 15s")
                for name in ("reactive", "lt-ua")
                for period in periods[1:]
            ),
            *(
                Finding(f"{name} every {period}: fast tier kept", "kept", f"{name} {period}")
                for name in ("reactive", "lt-ua")
                for period in periods
            ),
        ),
        _NO_NUMBER,
    )
