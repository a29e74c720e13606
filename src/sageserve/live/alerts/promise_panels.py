"""Figures of promises, from the histograms of gateways or engines. Names are those that they export. Read next: `boards.py`."""

from collections.abc import Sequence
from typing import Final

from sageserve.data.history.names import EngineKind, EngineSignal, aliases_of
from sageserve.live.alerts.figures import STEP, Panel, Query, Section
from sageserve.live.alerts.rules import BURNS, Promise, late_ratio
from sageserve.live.gateway import meter

BUDGET: Final = "30d"
_QUANTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def budget(promises: Sequence[Promise]) -> Section:
    """How much of the error budget is left, how fast it goes, and what share of promises is kept."""

    def name(one: Promise) -> str:
        return f"{one.tier} {{{{{one.by}}}}}"

    left = [Query(f"1 - ({late_ratio(one, BUDGET)}) / {one.budget:.6g}", name(one), instant=True) for one in promises]
    burn = [Query(f"({late_ratio(one, '1h')}) / {one.budget:.6g}", name(one)) for one in promises]
    kept = [Query(f"1 - ({late_ratio(one, '5m')})", name(one)) for one in promises]
    promised = "; ".join(f"{one.tier}: {one.promised} for {1 - one.budget:.4g} of them" for one in promises)
    colours = ("yellow", "orange", "dark-orange", "red")
    rates = sorted(one.rate for one in BURNS)
    return Section(
        "Error budget",
        (
            Panel(
                "Error budget left of 30 days",
                f"Share of the late first tokens that may still come. Below 0 the promise of 30 days is broken. {promised}.",
                "percentunit",
                tuple(left),
                "numbers",
                ((None, "red"), (0.0, "orange"), (0.25, "yellow"), (0.5, "green")),
                8,
            ),
            Panel(
                "Burn rate of the last hour",
                f"1 uses the budget of 30 days up in 30 days; alerts look at {', '.join(f'{one.rate:g}' for one in BURNS)}.",
                "none",
                tuple(burn),
                marks=((None, "green"), *zip(rates, colours, strict=True)),
                width=8,
            ),
            Panel(
                "Promises kept",
                f"Share of first tokens in time, five minutes each. {promised}.",
                "percentunit",
                tuple(kept),
                width=8,
            ),
        ),
    )


def _quantiles(histogram: str, matchers: str, by: str, quantiles: Sequence[tuple[str, float]]) -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by (le, {by}) (rate({histogram}_bucket{{{matchers}}}[{STEP}])))", f"{name} {{{{{by}}}}}"
        )
        for name, q in quantiles
    )


def times(promises: Sequence[Promise], *, ours: bool) -> Section:
    """How long things take: by tier, or of engines by model."""
    chosen = f'{promises[0].by}=~"$model"'
    if not ours:
        total, between, queue = (_vllm(one) for one in (EngineSignal.E2E, EngineSignal.ITL, EngineSignal.QUEUE))
        named = (
            (promises[0].histogram, "Time to first token"),
            (between, "Between tokens"),
            (total, "Whole answer"),
            (queue, "In the queue"),
        )
        return Section(
            "Times, as engines have them",
            tuple(
                Panel(
                    title,
                    "Quantiles over all requests of a model.",
                    "s",
                    _quantiles(one, chosen, "model_name", _QUANTILES),
                    width=6,
                )
                for one, title in named
            ),
        )
    first = _quantiles(meter.TTFT, chosen, "tier", _QUANTILES)
    return Section(
        "Times",
        (
            Panel("Time to first token", "Streamed requests, by tier.", "s", first, width=8),
            Panel(
                "Per token after the first",
                "p95 by tier.",
                "s",
                _quantiles(meter.PER_TOKEN, chosen, "tier", (("p95", 0.95),)),
                width=8,
            ),
            Panel("Whole answer", "p95 by tier.", "s", _quantiles(meter.DURATION, chosen, "tier", (("p95", 0.95),)), width=8),
        ),
    )


def requests() -> Section:
    """What comes, and what is inside the gateways."""
    chosen = 'gen_ai_request_model=~"$model"'
    rate = f"sum by (tier) (rate({meter.REQUESTS}{{{chosen}}}[{STEP}]))"
    tokens = f"sum by (gen_ai_token_type) (rate({meter.TOKENS}{{{chosen}}}[{STEP}]))"
    return Section(
        "Requests and queue",
        (
            Panel(
                "Requests by tier", "Answered, whatever the answer.", "reqps", (Query(rate, "{{tier}}"),), width=8, stacked=True
            ),
            Panel(
                "Tokens",
                "Of prompts and answers, as engines report them.",
                "none",
                (Query(tokens, "{{gen_ai_token_type}}/s"),),
                width=8,
            ),
            Panel(
                "Inside",
                "Requests that are not answered yet, and of these batch ones that wait for spare capacity.",
                "none",
                (Query(f"sum({meter.IN_FLIGHT})", "in flight"), Query(f"sum({meter.WAITING})", "waiting")),
                width=8,
            ),
        ),
    )


def failures() -> Section:
    """What fails, is turned away or sent elsewhere."""
    chosen = 'gen_ai_request_model=~"$model"'
    every = f"sum(rate({meter.REQUESTS}{{{chosen}}}[{STEP}]))"
    failed = f'sum by (code) (rate({meter.REQUESTS}{{{chosen},code=~"[45].."}}[{STEP}])) / ignoring (code) group_left {every}'
    refused = f"sum by (tier, code) (rate({meter.REFUSALS}[{STEP}]))"
    retried = f"sum by (reason) (rate({meter.RETRIES}[{STEP}]))"
    return Section(
        "Failures",
        (
            Panel(
                "Answers that are errors",
                "Share of all, by status; 429 is turned away, 499 left.",
                "percentunit",
                (Query(failed, "{{code}}"),),
                width=8,
            ),
            Panel("Turned away by the gateway", "By tier and status.", "reqps", (Query(refused, "{{tier}} {{code}}"),), width=8),
            Panel(
                "Sent to another engine",
                "Before a first byte, by reason; streams that broke off after it.",
                "reqps",
                (Query(retried, "{{reason}}"), Query(f"sum(rate({meter.BROKEN}[{STEP}]))", "stream broken")),
                width=8,
            ),
        ),
    )


def _vllm(signal: EngineSignal) -> str:
    return aliases_of(EngineKind.VLLM, signal)[0].metric


def engines() -> Section:
    """What is inside engines that others run."""
    chosen = 'model_name=~"$model"'
    running, waiting = (_vllm(one) for one in (EngineSignal.RUNNING, EngineSignal.WAITING))
    return Section(
        "Requests and queue",
        (
            Panel(
                "Inside engines",
                "Requests that run and that wait, by model.",
                "none",
                (
                    Query(f"sum by (model_name) ({running}{{{chosen}}})", "{{model_name}} running"),
                    Query(f"sum by (model_name) ({waiting}{{{chosen}}})", "{{model_name}} waiting"),
                ),
            ),
            Panel(
                "Requests done",
                "By model.",
                "reqps",
                (Query(f"sum by (model_name) (rate({_vllm(EngineSignal.E2E)}_count{{{chosen}}}[{STEP}]))", "{{model_name}}"),),
            ),
        ),
    )
