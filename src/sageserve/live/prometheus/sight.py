"""What a look at a pool shows: seen (idle or not), seen in part, or blind; with the reason, and which names matched.

Seen means: samples that are young enough, from nine tenths of the instances that should be there, in an answer without warnings,
and no instance twice. Zeros that were recorded are idleness; nothing recorded is blindness. Pure: it is told answer and time.
Read next: `server.py`, which asks; docs/reference/prometheus.md.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.data.history.collect import PLAIN, completions, metrics_of
from sageserve.data.history.names import PREFIXES, EngineKind, EngineSignal, canonical
from sageserve.data.history.raw import Copies, RawSeries, without_copies
from sageserve.data.history.records import SEEN_LEAST
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, RawAnswer

AHEAD_MOST: Final[Micros] = 10 * SECOND  # clocks differ; samples from further in the future are no samples of now
SCRAPES: Final = 3  # scrape intervals after which a sample is old, where that is longer than what settings say
BLIND_LEAST: Final[Micros] = 90 * SECOND  # a scrape and an evaluation may each take their time


@dataclass(frozen=True, slots=True)
class PodSight:
    """One instance, as it was last seen.

    Args:
        name: of the instance.
        engine: which program it is.
        age: microseconds since its newest sample.
        running, waiting: requests; NaN: not told.
        completed: requests since it began; NaN: not told.
        matched: metric by signal, as recorded.
    """

    name: str
    engine: EngineKind
    age: Micros
    running: float
    waiting: float
    completed: float
    matched: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PoolSight:
    """A pool, as it is seen.

    Args:
        state: `seen`; `partial`: too few of it, or in part; `blind`.
        idle: seen, and nothing runs or waits.
        why: why it is not seen; None when it is.
        detail: the same for people, in one sentence; empty when it is seen.
        pods: instances of which there were samples.
        copies: series that are there several times.
    """

    state: Literal["seen", "partial", "blind"]
    idle: bool
    why: NotSeenReason | None
    detail: str
    pods: tuple[PodSight, ...] = ()
    copies: tuple[Copies, ...] = ()


def blind_after(settings: Micros, scrape: Micros) -> Micros:
    """Age of a sample beyond which it says nothing of now.

    Args:
        settings: `live.safety.blind_after`.
        scrape: usual microseconds between two samples.
    """
    return max(settings, BLIND_LEAST, SCRAPES * scrape)


def look(answer: RawAnswer | NotSeen, now: Micros, limit: Micros, ready: Collection[str] | None = None) -> PoolSight:
    """What an answer says of a pool. Never raises.

    Args:
        answer: raw samples of the plain signals of the pool's engines, of the last minutes.
        now: microseconds since 1970.
        limit: as `blind_after` has it.
        ready: names of pods that are Ready, where that is known.
    """
    if isinstance(answer, NotSeen):
        return _blind(answer.why, answer.detail)
    kept, copies = without_copies(one for one in answer.series if len(one))
    pods = _pods(kept, now)
    if not pods:
        return _blind(NotSeenReason.NO_SERIES, _nothing(ready))
    if (unseen := _unusable(pods, now, limit, kept)) is not None:
        return PoolSight("blind", False, unseen.why, unseen.detail, pods, tuple(copies))
    if (lacking := _in_part(answer, pods, limit, ready, copies)) is not None:
        return PoolSight("partial", False, lacking.why, lacking.detail, pods, tuple(copies))
    return PoolSight("seen", all(pod.running + pod.waiting == 0 for pod in pods), None, "", pods)


def _blind(why: NotSeenReason, detail: str) -> PoolSight:
    return PoolSight("blind", False, why, detail)


def _nothing(ready: Collection[str] | None) -> str:
    there = f" while {len(ready)} pods are Ready" if ready else ""
    return f"no series of an engine that is known{there}: nothing is known, which is not the same as nothing to do"


def _unusable(pods: Sequence[PodSight], now: Micros, limit: Micros, kept: Sequence[RawSeries]) -> NotSeen | None:
    """A reason why none of it may be believed."""
    ahead = max(int(one.time[-1]) for one in kept) - now
    if ahead > AHEAD_MOST:
        said = f"the newest samples are {show_duration(ahead // SECOND * SECOND)} ahead of this clock: one of both is wrong"
        return NotSeen(NotSeenReason.AHEAD, said)
    if all(pod.age > limit for pod in pods):
        age = show_duration(min(pod.age for pod in pods) // SECOND * SECOND)
        return NotSeen(NotSeenReason.STALE, f"the newest sample is {age} old, more than {show_duration(limit)}")
    for pod in pods:
        if pod.age <= limit and not (math.isfinite(pod.running) and math.isfinite(pod.waiting)):
            return NotSeen(NotSeenReason.NOT_A_NUMBER, f"{pod.name} does not say in numbers how many requests run and wait")
    return None


def _in_part(
    answer: RawAnswer, pods: Sequence[PodSight], limit: Micros, ready: Collection[str] | None, copies: Sequence[Copies]
) -> NotSeen | None:
    """A reason why it is not all."""
    if answer.warnings:
        return NotSeen(NotSeenReason.PARTIAL, f"the server answers in part: {answer.warnings[0]}")
    fresh = [pod for pod in pods if pod.age <= limit]
    expected = max(len(ready) if ready is not None else 0, len(pods))
    if len(fresh) < SEEN_LEAST * expected:
        return NotSeen(NotSeenReason.FEW, f"{len(fresh)} of {expected} instances are seen")
    if copies:
        one = copies[0]
        labels = ", ".join(one.labels) or "no label"
        return NotSeen(NotSeenReason.DOUBLE, f"{one.instance} is recorded {one.count} times, told apart by {labels}")
    return None


def _pods(kept: Sequence[RawSeries], now: Micros) -> tuple[PodSight, ...]:
    by_instance: dict[str, dict[str, list[RawSeries]]] = {}
    for one in kept:
        by_instance.setdefault(one.instance, {}).setdefault(canonical(one.name), []).append(one)
    found = []
    for instance, named in sorted(by_instance.items()):
        kind = next((kind for kind, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in named)), None)
        if kind is not None:
            found.append(_pod(instance, kind, named, now))
    return tuple(found)


def _pod(instance: str, kind: EngineKind, named: Mapping[str, Sequence[RawSeries]], now: Micros) -> PodSight:
    values: dict[EngineSignal, float] = {}
    matched: dict[str, str] = {}
    newest = max((int(one.time[-1]) for series in named.values() for one in series), default=0)
    for signal in PLAIN:
        wanted = completions(kind) if signal is EngineSignal.SUCCESS else metrics_of(kind, signal)
        for metric in wanted:
            series = named.get(metric, ())
            if series:
                values[signal] = sum(float(one.value[-1]) for one in series)
                matched[signal.value] = series[0].name
                break
    missing = math.nan
    return PodSight(
        name=instance,
        engine=kind,
        age=max(0, now - newest),
        running=values.get(EngineSignal.RUNNING, missing),
        waiting=values.get(EngineSignal.WAITING, missing),
        completed=values.get(EngineSignal.SUCCESS, missing),
        matched=matched,
    )
