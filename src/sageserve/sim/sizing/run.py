"""Sizing a fleet: windows are made, models are searched side by side, and the fleet that comes out is played as a whole.

    sizing = size(scenario, source, Wish(safety=0.99), runner)

A window of generated traffic is the scenario's with another seed; a window of a trace is the trace, and then resampled ones
(`data/traces/changes/transform.py`). Models share no instance, so each is searched with its own requests alone; the last word has
the whole fleet in all windows. Read next: `search.py`, `answer.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.answer import Found, answer
from sageserve.sim.sizing.conditions import Losses, losses_of
from sageserve.sim.sizing.plays import Plays, Wish, fleet_of, measured_of
from sageserve.sim.sizing.pools import SizedPool, pools_to_size
from sageserve.sim.sizing.records import Sizing
from sageserve.sim.sizing.search import Counts, Measured, Promises, Search, least_of
from sageserve.sim.sweep.cell import Player
from sageserve.sim.sweep.run import CellRunner, Watch

_REPAIRS: Final = 8  # instances that the whole fleet may need beyond what models alone did


def size(scenario: Scenario, source: SweepSource, wish: Wish, runner: CellRunner, watch: Watch | None = None) -> Sizing:
    """The least fleet of constant size that keeps every promise of every model.

    Args:
        scenario: what is to be served, on which GPUs and with what promises.
        source: where its requests come from.
        wish: how sure it must be.
        runner: where windows are played; workers that are kept from one run to the next save most of the time.
        watch: who looks on.

    Raises:
        ConfigError: the wish cannot be answered, or the scenario describes no traffic.
        Infeasible: no number of instances keeps every promise.
        TraceError: the trace cannot be read.
        Interrupted: the watch said so.
    """
    wish.check()
    plays = Plays(scenario, source, wish, runner, watch or Watch())
    trace = Player().requests(plays.cell(0)).trace
    pools = pools_to_size(scenario, trace)
    plays.pools = {pool.name: pool for of_model in pools.values() for pool in of_model}
    there = {
        (trace.names.models[m], trace.names.tiers[k]) for m, k in zip(trace.model.tolist(), trace.tier.tolist(), strict=True)
    }
    served = {model for model, _ in there}
    if not served:
        raise ConfigError(f"nothing arrives in {scenario.name}: there is nothing to size for", hint="give --trace, or traffic")
    percentiles = {name: tier.percentile for name, tier in scenario.tiers.items()}
    promises = Promises(percentiles, wish.windows, wish.safety, len(there))
    losses = losses_of(plays.pools.values(), wish.survive, served, _confined(scenario, there))
    searches = {
        model: Search(model, of_model, promises, losses=_of_model(losses, of_model))
        for model, of_model in pools.items()
        if model in served
    }
    plays.search(searches)
    counts = {pool.name: 0 for pool in plays.pools.values()}
    for model, of_model in pools.items():
        found = searches[model].counts if model in searches else tuple(pool.floor for pool in of_model)
        counts |= {pool.name: count for pool, count in zip(of_model, found, strict=True)}
    counts, measured, first = _proved(plays, promises, searches, counts, losses)
    less = {name: broken for search in searches.values() for name, broken in search.less.items()}
    reach = {(model, tier): share for model, one in searches.items() for tier, share in one.reach.items()}
    targets = {model: one.promises.percentiles for model, one in searches.items()}
    found_all = Found(
        counts, plays.pools, measured, less, [plays.seed(w) for w in range(wish.windows)], plays.count, reach, targets
    )
    return answer(scenario, found_all, promises, first)


def _confined(scenario: Scenario, there: Collection[tuple[str, str]]) -> set[str]:
    """Tiers with requests, of (model, tier) pairs, that one region alone may serve."""
    return {
        tier
        for model, tier in there
        for origin in scenario.regions
        if scenario.tiers[tier].regions != "any" and len({*scenario.serving(tier, origin)} & {*scenario.places(model)}) < 2
    }


def _of_model(losses: Losses, pools: Sequence[SizedPool]) -> dict[str, Counts]:
    """Instances of one model that may be lost, in the order of its pools."""
    found = {lost: tuple(taken.get(pool.name, 0) for pool in pools) for lost, taken in losses.items()}
    return {lost: taken for lost, taken in found.items() if any(taken)}


def _proved(
    plays: Plays, promises: Promises, searches: dict[str, Search], counts: dict[str, int], losses: Losses
) -> tuple[dict[str, int], dict[str, list[Measured]], Summary]:
    """The whole fleet in all windows; where that breaks what models alone kept, an instance more, and what can go then goes.

    Searches of models that were repaired are replaced by those within the whole fleet: what they say of one less is said of it.
    """
    repaired: set[str] = set()
    for _ in range(_REPAIRS):
        found, first = _whole(plays, promises, counts, losses)
        measured = {
            model: [least_of({lost: measured_of(s, model) for lost, s in one.items()}) for one in found] for model in searches
        }
        short = [model for model, one in searches.items() if _broken(one.promises, measured[model])]
        for model in short:
            most = max(searches[model].pools, key=lambda pool: counts[pool.name])
            counts = {**counts, most.name: counts[most.name] + 1}
        repaired |= set(short)
        if short:
            continue
        before = counts
        for model in sorted(repaired):
            searches[model] = replace(searches[model], within=counts, measured={}, played={})
            plays.search({model: searches[model]})
            counts = fleet_of(searches[model], searches[model].counts)
        if counts == before:
            return counts, measured, first
        repaired = set()
    raise Infeasible("the models together miss promises that each of them kept alone", hint="ask for less with --safety 90%")


def _whole(
    plays: Plays, promises: Promises, counts: Mapping[str, int], losses: Losses
) -> tuple[list[dict[str, Summary]], Summary]:
    """The whole fleet by window and by what is lost, and the first window of all of it."""
    left = {"": dict(counts)} | {
        lost: {name: max(count - taken.get(name, 0), 0) for name, count in counts.items()} for lost, taken in losses.items()
    }
    asked = [(window, lost) for window in range(promises.windows) for lost in left]
    found: list[dict[str, Summary]] = [{} for _ in range(promises.windows)]
    played = plays.play([plays.cell(window, left[lost]) for window, lost in asked])
    for (window, lost), summary in zip(asked, played, strict=True):
        found[window][lost] = summary
    return found, found[0][""]


def _broken(promises: Promises, windows: Sequence[Measured]) -> bool:
    """Whether a model of the whole fleet breaks a promise that is in reach, or is not sure enough of it."""
    return any(promises.broken_in(one, w) for w, one in enumerate(windows)) or promises.unsure(windows) is not None
