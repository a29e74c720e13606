"""Who pays what, as sheets of a page: cost by model, tier, region and tenant, with what a million tokens cost.

Adds nothing up. Read next: `data/billing/allocations.py` for the tables, docs/reference/money.md for the rule.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import UnsetType

from sageserve.base.units import show_money
from sageserve.data.billing.allocations import CostShare
from sageserve.data.results.comparison import Comparison
from sageserve.data.results.summary import Summary, TenantSummary
from sageserve.show.format import NONE, percent
from sageserve.show.sheets import Sheet, TableCell, TableRow

_RULE: Final = (
    "To the cent; each kind of line comes to the cost. Requests share what their pool cost by the engine time that they took:"
    " idle time, starts and unused reservations too."
)
_SHARED: Final = "Tenants share what a tier may hold by weight; tokens are those of prompts and answers that were finished."
_UNSHARED: Final = "Nobody shares by weight: tenants are in one queue. The setting `tenants` gives them weights, as live."
_DIMENSIONS: Final = ("model", "tier", "region", "tenant")
_COUNTED: Final = ("requests", "finished", "shed")
_MOST: Final = 12  # tenants on a page; `sageserve costs` has all of them


def cost_sheets(comparison: Comparison) -> Iterator[Sheet]:
    """A sheet of who pays what; of several strategies by model and tier alone, each of its first seed."""
    firsts = {name: next(iter(runs.values())) for name, runs in comparison.runs.items()}
    if not any(run.cost_by.tier for run in firsts.values()):
        return
    several = len(firsts) > 1
    seeded = any(len(runs) > 1 for runs in comparison.runs.values())
    unused = any(run.cost_usd.unused for run in firsts.values())
    rows = []
    for name, run in firsts.items():
        before = f"{name}, " if several else ""
        rows += [
            TableRow(f"{before}{kind} {key}", tuple(_cells(f"cost_by.{kind}.{key}", share, run.currency, unused=unused)))
            for kind in (_DIMENSIONS[:2] if several else _DIMENSIONS)
            for key, share in _shown(run, kind)
        ]
    columns = (
        "cost",
        "busy",
        "idle",
        "starting",
        *(["unused"] if unused else []),
        "per 1M prompt tokens",
        "per 1M output tokens",
    )
    notes = (_RULE, "Of the first seed.") if seeded else (_RULE,)
    yield Sheet("Who pays", columns, tuple(rows), notes, "by")


def shared_tokens(tenants: Mapping[str, TenantSummary]) -> dict[str, float]:
    """Of all tokens of prompts and answers that were finished the part of each; empty where nobody shares by weight."""
    tokens = {name: sum(one.tokens.values()) for name, one in tenants.items() if not isinstance(one.tokens, UnsetType)}
    total = sum(tokens.values())
    return {name: count / total if total else 0.0 for name, count in tokens.items()}


def tenant_sheets(comparison: Comparison) -> Iterator[Sheet]:
    """A sheet of what each tenant got: requests and promises kept, of each strategy's first seed."""
    firsts = {name: next(iter(runs.values())) for name, runs in comparison.runs.items()}
    tenants = {name: run.tenants for name, run in firsts.items() if not isinstance(run.tenants, UnsetType)}
    if not tenants:
        return
    tiers = list(next(iter(firsts.values())).tiers)
    rows, sharing = [], False
    for name, found in tenants.items():
        before, shared = f"{name}, " if len(firsts) > 1 else "", shared_tokens(found)
        sharing = sharing or bool(shared)
        for tenant, one in list(found.items())[:_MOST]:
            key = f"tenants.{tenant}"
            cells = [TableCell(f"{getattr(one, what):,}", f"{key}.{what}", getattr(one, what)) for what in _COUNTED]
            if shared:
                weight = None if isinstance(one.weight, UnsetType) else one.weight
                cells += [TableCell(NONE if weight is None else f"{weight:g}", f"{key}.weight", weight)]
                cells += [TableCell(percent(shared[tenant]), f"{key}.tokens", shared[tenant])]
            for tier in tiers:
                kept = one.attainment.get(tier)
                mark = "" if kept is None else "good" if kept >= firsts[name].tiers[tier].percentile else "bad"
                cells.append(TableCell(percent(kept), f"{key}.attainment.{tier}", kept, mark))
            rows.append(TableRow(f"{before}{tenant}", tuple(cells)))
    yield Sheet(
        "What each tenant got",
        ("requests", "finished", "shed", *(("weight", "of all tokens") if sharing else ()), *(f"{tier} kept" for tier in tiers)),
        tuple(rows),
        (_SHARED if sharing else _UNSHARED,),
        "tenant",
    )


def _shown(run: Summary, kind: str) -> list[tuple[str, CostShare]]:
    found: dict[str, CostShare] = getattr(run.cost_by, kind)
    return list(found.items())[:_MOST] if kind == "tenant" else list(found.items())


def _cells(key: str, share: CostShare, currency: str, *, unused: bool) -> Iterator[TableCell]:
    for name in ("total", "busy", "idle", "start", *(["unused"] if unused else [])):
        amount: float = getattr(share, name)
        yield TableCell(show_money(amount, currency), f"{key}.{name}", amount)
    for name in ("per_million_prompt_tokens", "per_million_output_tokens"):
        price: float | None = getattr(share, name)
        yield TableCell(NONE if price is None else show_money(price, currency), f"{key}.{name}", price)
