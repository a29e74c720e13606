"""Rules for Prometheus, made of a scenario's promises: how fast each tier burns its error budget, and what else wakes somebody.

A tier that promises p95 has an error budget: 5 % of its requests may be late. A burn rate of 1 uses the budget of 30 days up in
30 days. Each alert looks at a long window, so that it is worth waking for, and at a short one, so that it ends when the trouble
does (Google, The Site Reliability Workbook, chapter 5). A rate that even all requests being late would not reach makes no rule.
Pure. Read next: docs/how-to/alerts.md; `cli/alerts.py`, which writes the file.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import yaml

from sageserve.base.config import Scenario, TierSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, show_duration
from sageserve.data.history.names import PREFIXES, EngineKind, EngineSignal, aliases_of
from sageserve.data.rebuild.render import TTFT as VLLM_S
from sageserve.live.gateway.meter import LATE, REQUESTS, TTFT, TTFT_S

Source: TypeAlias = Literal["gateway", "engines"]
"""Whose histograms: those of our gateway, by tier; or those of engines, which know no tiers."""
Rule: TypeAlias = dict[str, object]

RUNBOOK: Final = "docs/how-to/alerts.md"
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """A burn rate that is told.

    Args:
        rate: times the rate that uses the budget up in 30 days.
        long: window in which it must hold.
        short: window in which it must still hold.
        severity: `page`: wake somebody; `ticket`: look at it this week.
    """

    rate: float
    long: str
    short: str
    severity: Literal["page", "ticket"]


BURNS: Final = (
    Burn(14.4, "1h", "5m", "page"),  # 2 % of the budget of 30 days in an hour
    Burn(6.0, "6h", "30m", "page"),  # 5 % in six hours
    Burn(3.0, "1d", "2h", "ticket"),  # 10 % in a day
    Burn(1.0, "3d", "6h", "ticket"),  # 10 % in three days
)


@dataclass(frozen=True, slots=True)
class Promise:
    """What may be late: requests of a tier, or of all, whose first token comes after `bound`.

    Args:
        tier: its name, for people and as a label.
        matchers: of its series.
        histogram: name without `_bucket`.
        by: label that names the model.
        bound: text of the bucket's bound, in seconds.
        promised: the promise, in words.
        budget: share that may be late.
        late: name of the counter of those that were; empty: the histogram tells.
    """

    tier: str
    matchers: str
    histogram: str
    by: str
    bound: str
    promised: str
    budget: float
    late: str = ""


def rules_of(scenario: Scenario, source: Source, runbooks: str = "") -> dict[str, object]:
    """A file of rules.

    Args:
        scenario: for its tiers.
        source: whose histograms.
        runbooks: address that the pages lie under; empty: where they lie in the project.

    Raises:
        ConfigError: no tier promises a time to the first token that is the same for prompts of all lengths.
    """
    promises = promises_of(scenario, source)
    link = f"{runbooks.rstrip('/')}/how-to/alerts" if runbooks else RUNBOOK
    recorded = [_recorded(promise, window) for promise in promises for window in WINDOWS]
    burning = [rule for promise in promises for rule in _burning(promise, link)]
    others = [*((*_errors(link), *_unled(link)) if source == "gateway" else _short(link)), *_sight(link)]
    return {
        "groups": [
            {"name": "sageserve-late", "interval": "30s", "rules": recorded},
            {"name": "sageserve-promises", "rules": burning},
            {"name": "sageserve-fleet", "rules": others},
        ]
    }


def as_yaml(rules: dict[str, object], *, name: str, operator: bool) -> str:
    """Text of the file.

    Args:
        rules: as `rules_of` has them.
        name: of the object.
        operator: as an object of the Prometheus operator, PrometheusRule.
    """
    if operator:
        known = re.sub("[^a-z0-9.-]+", "-", name.lower()).strip("-.")  # what Kubernetes takes for a name
        head = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": known}}
        rules = {**head, "spec": rules}
    return yaml.safe_dump(rules, sort_keys=False, width=150, allow_unicode=True)


def promises_of(scenario: Scenario, source: Source) -> list[Promise]:
    """What may be late, as far as a source tells it: by tier, or of engines the laxest promise.

    A histogram does not say how long prompts were: of a promise that grows with them our gateway counts who was late.

    Raises:
        ConfigError: no tier promises a time to the first token; to engines one that is the same for prompts of all lengths.
    """
    promised = {name: tier for name, tier in scenario.tiers.items() if tier.ttft is not None}
    tiers = {name: tier for name, tier in promised.items() if not tier.growth}
    mixed = len(tiers) < len(promised)
    if not promised:
        raise ConfigError(f"{scenario.name} has no tier that promises a time to first token", hint="write tiers.NAME.ttft")
    if mixed and source == "engines":  # engines know no tiers: what is late for one may be in time for another
        raise ConfigError(
            f"a tier of {scenario.name} has a promise that grows with the prompt, and engines do not say how long late ones were",
            hint="take --of gateway, which counts who was late; or write tiers.NAME.ttft without ttft_per_1k_tokens",
        )
    if source == "gateway":
        return [_promise(name, tier, f'tier="{name}"', TTFT, "gen_ai_request_model", TTFT_S) for name, tier in promised.items()]
    name, tier = max(tiers.items(), key=lambda one: (one[1].ttft or 0, one[0]))  # later than this is late for every tier
    histogram = aliases_of(EngineKind.VLLM, EngineSignal.TTFT)[0].metric
    assert histogram.startswith(PREFIXES[EngineKind.VLLM])
    return [_promise(name, tier, "", histogram, "model_name", VLLM_S)]


def _promise(name: str, tier: TierSettings, matchers: str, histogram: str, by: str, bounds: Sequence[float]) -> Promise:
    assert tier.ttft is not None
    seconds = tier.ttft / SECOND
    bound = max((one for one in bounds if one <= seconds + 1e-9), default=bounds[0])
    grows = f" and {show_duration(tier.growth)} for every 1,000 tokens of the prompt" if tier.growth else ""
    return Promise(
        name,
        matchers,
        histogram,
        by,
        f"{bound:g}" if bound % 1 else f"{bound:.1f}",
        show_duration(tier.ttft) + grows,
        1.0 - tier.percentile,
        LATE if tier.growth else "",
    )


def late_ratio(promise: Promise, window: str) -> str:
    """PromQL: the share of requests in a window whose first token came after the promise, by model."""
    more = f",{promise.matchers}" if promise.matchers else ""
    own = f"{{{promise.matchers}}}" if promise.matchers else ""
    every = f"sum by ({promise.by}) (rate({promise.histogram}_count{own}[{window}]))"
    if promise.late:
        return f"sum by ({promise.by}) (rate({promise.late}{own}[{window}])) / {every}"
    bounds = "|".join(
        one.replace(".", "[.]") for one in (promise.bound, f"{float(promise.bound):g}")
    )  # a bare dot in 1.0 is 160, too
    le = f'le=~"{bounds}"'  # 1 and 1.0, as clients write it
    kept = f"sum by ({promise.by}) (rate({promise.histogram}_bucket{{{le}{more}}}[{window}]))"
    return f"1 - {kept} / {every}"


def _recorded(promise: Promise, window: str) -> Rule:
    return {"record": f"sageserve:late:ratio_rate{window}", "expr": late_ratio(promise, window), "labels": {"tier": promise.tier}}


def _burning(promise: Promise, link: str) -> Iterator[Rule]:
    for severity in ("page", "ticket"):
        burns = [one for one in BURNS if one.severity == severity and one.rate * promise.budget < 1.0]
        if burns:
            yield {
                "alert": "SageServePromiseBurn",
                "expr": " or ".join(f"({_both(promise, one)})" for one in burns),
                "for": "2m" if severity == "page" else "15m",
                "labels": {"severity": severity, "tier": promise.tier},  # of its series; promtool tells rules apart by it
                "annotations": {
                    "summary": f"{promise.tier}: more requests of {{{{ $labels.{promise.by} }}}} are late than promised",
                    "description": (
                        f"{{{{ $value | humanizePercentage }}}} have their first token after"
                        f" {'that' if promise.late else f'{promise.bound} s'}; promised are"
                        f" {promise.promised} for {1 - promise.budget:.2%}."
                    ),
                    "runbook_url": f"{link}#sageservepromiseburn",
                },
            }


def _both(promise: Promise, burn: Burn) -> str:
    mark = f"{burn.rate * promise.budget:.6g}"
    return " and ".join(
        f'sageserve:late:ratio_rate{window}{{tier="{promise.tier}"}} > {mark}' for window in (burn.long, burn.short)
    )


def _errors(link: str) -> Iterator[Rule]:
    yield _rule(
        "SageServeErrors",
        " and ".join(f"{_failing(window)} > 0.01" for window in ("1h", "5m")),
        ("2m", "page"),
        "more than 1 % of the requests for {{ $labels.gen_ai_request_model }} fail",
        link,
    )


def _failing(window: str) -> str:
    failed, every = (f"sum by (gen_ai_request_model) (rate({REQUESTS}{{{code}}}[{window}]))" for code in ('code=~"5.."', ""))
    return f"{failed} / {every}"


def _unled(link: str) -> Iterator[Rule]:
    """Of a batch queue that several control processes share; where none could, nobody says anything of it."""
    yield _rule("SageServeUnled", "max(sageserve_batch_leader) == 0", ("5m", "page"), "no process runs the batch queue", link)


def _short(link: str) -> Iterator[Rule]:
    needed, serving = (f"max by (region, model) (sageserve_{one}_instances)" for one in ("needed", "serving"))
    yield _rule(
        "SageServeTooFew",
        f"{needed} > {serving}",  # both of the fastest type, and without the instance and job that a scrape adds
        ("10m", "ticket"),
        "{{ $labels.region }}/{{ $labels.model }} needs {{ $value }} instances of its fastest type, and less serves",
        link,
    )


def _sight(link: str) -> Iterator[Rule]:
    where = "{{ $labels.region }}/{{ $labels.model }}"
    yield _rule("SageServeBlind", "sageserve_blind == 1", ("15m", "ticket"), f"nothing is seen of {where}", link)
    yield _rule("SageServeGone", "absent(sageserve_gpus_held)", ("10m", "page"), "the process that decides is not scraped", link)


def _rule(name: str, expr: str, when: tuple[str, str], summary: str, link: str) -> Rule:
    return {
        "alert": name,
        "expr": expr,
        "for": when[0],
        "labels": {"severity": when[1]},
        "annotations": {"summary": summary, "runbook_url": f"{link}#{name.lower()}"},
    }
