"""A plan as schedules of autoscalers: KEDA's cron triggers, or AIBrix's schedules, which hold a minimum while a window lasts.

    kind: ScaledObject    spec.triggers[]   {type: cron, metadata: {timezone, start, end, desiredReplicas}}
    kind: PodAutoscaler   spec.schedules[]  {name, timezone, daysOfWeek, startTime, endTime, minReplicas}

Facts of KEDA: https://keda.sh/docs/2.17/scalers/cron; of AIBrix: podautoscaler_types.go of vllm-project/aibrix, 06a0850 (days by
three letters, HH:MM, no window over midnight). Neither has a year: KEDA's come again a year later, AIBrix's a week later, unless
another plan takes their place. Files are JSON patches (RFC 6902); those for KEDA leave the owner's own triggers. Pure.
Read next: `patches.py`; `cli/plan.py`, which writes the files.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

import yaml

from sageserve.base.config.clusters import TargetSettings
from sageserve.data.results.plans import AheadPlan, PlanFile
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.patches import Tree, component, file_names

ScheduleFormat: TypeAlias = Literal["keda-cron", "aibrix-schedules"]
KIND_OF: Final[Mapping[ScheduleFormat, str]] = {"keda-cron": "ScaledObject", "aibrix-schedules": "PodAutoscaler"}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class ScheduleWindow:
    """A time with one count.

    Args:
        begins: with its zone.
        ends: likewise.
        count: instances.
    """

    begins: datetime
    ends: datetime
    count: int


def windows_of(file: PlanFile, pool: int, begins: datetime, bounds: tuple[int, int]) -> tuple[ScheduleWindow, ...]:
    """What a pool should have, from the plan's instant to the end of what it says; neighbours of one count are one window.

    A plan of an hour holds until it expires. A trajectory says what serves or is coming in each step: the target, then what is
    started, reclaimed and stopped from step to step; fractions are rounded up.

    Args:
        file: the plan.
        pool: its number in the plan.
        begins: the instant of the plan by the wall clock, with a zone.
        bounds: least and most.
    """
    solved, counts = file.solved, []
    if isinstance(solved, AheadPlan):
        present = float(solved.plan.target[pool])
        for number, step in enumerate(solved.plan.steps):
            if number:
                present += step.start[pool] + step.reclaim[pool] - step.stop[pool]
            counts.append((timedelta(hours=step.hours), present))
    else:
        counts.append((timedelta(microseconds=file.expires_at - file.made_at), float(file.pools[pool].target)))
    found: list[ScheduleWindow] = []
    at = begins.astimezone(UTC)
    for length, value in counts:
        count = min(max(math.ceil(value - 1e-6), bounds[0]), bounds[1])
        here, at = at.astimezone(begins.tzinfo), at + length
        if found and found[-1].count == count:
            here = found.pop().begins
        found.append(ScheduleWindow(here, at.astimezone(begins.tzinfo), count))
    return tuple(found)


def comes_twice(at: datetime) -> bool:
    """Whether a zone's clock shows this time twice, because it is put back: a schedule that names it would end early or go on."""
    first, second = at.replace(fold=0).utcoffset(), at.replace(fold=1).utcoffset()
    return first is not None and second is not None and first > second


@dataclass(frozen=True, slots=True)
class SchedulePatch:
    """The schedule of one object.

    Args:
        target: its name in the settings.
        file: of the patch.
        windows: what it says.
        text: the patch.
        selector: the object, as Kustomize names it.
    """

    target: str
    file: str
    windows: tuple[ScheduleWindow, ...]
    text: str
    selector: Tree


def schedules_of(
    file: PlanFile, targets: Mapping[str, TargetSettings], form: ScheduleFormat, begins: datetime
) -> tuple[SchedulePatch, ...]:
    """Schedules of all targets of the format's kind whose pool the plan has, in the order of the settings.

    Args:
        file: the plan.
        targets: by name.
        form: whose schedules.
        begins: the instant of the plan by the wall clock; its zone is a `ZoneInfo`.
    """
    numbers = {line.pool: number for number, line in enumerate(file.pools)}
    mine = {name: one for name, one in targets.items() if one.kind == KIND_OF[form] and one.pool in numbers}
    return tuple(_schedules(file, mine, form, begins, numbers))


def _schedules(
    file: PlanFile, targets: Mapping[str, TargetSettings], form: ScheduleFormat, begins: datetime, numbers: Mapping[str, int]
) -> Iterator[SchedulePatch]:
    zone = begins.tzinfo
    assert isinstance(zone, ZoneInfo)
    head = f"# plan sha256-{file.solved.plan.input_hash[:12]} of {file.strategy}\n"
    for (name, target), file_name in zip(targets.items(), file_names(targets), strict=True):
        windows = windows_of(file, numbers[target.pool], begins, (target.min, target.max))
        patch = _cron(windows, zone.key) if form == "keda-cron" else _weekly(windows, zone.key)
        namespace, object_name = target.name.split("/", 1)
        kind = KINDS[target.kind]
        selector: Tree = {
            "group": kind.group,
            "version": kind.version,
            "kind": kind.kind,
            "name": object_name,
            "namespace": namespace,
        }
        yield SchedulePatch(name, file_name, windows, head + yaml.safe_dump(patch, sort_keys=False), selector)


def _cron(windows: Sequence[ScheduleWindow], zone: str) -> list[dict[str, object]]:
    """Triggers added to those that the object has; the highest of all wins, so these are floors."""
    return [
        {
            "op": "add",
            "path": "/spec/triggers/-",
            "value": {
                "type": "cron",
                "metadata": {
                    "timezone": zone,
                    "start": _cron_time(one.begins),
                    "end": _cron_time(one.ends),
                    "desiredReplicas": str(one.count),
                },
            },
        }
        for one in windows
    ]


def _cron_time(at: datetime) -> str:
    return f"{at.minute} {at.hour} {at.day} {at.month} *"


def _weekly(windows: Sequence[ScheduleWindow], zone: str) -> list[dict[str, object]]:
    """The object's schedules; a window over midnight is two."""
    parts = [part for one in windows for part in _days(one)]
    return [
        {
            "op": "add",
            "path": "/spec/schedules",
            "value": [
                {
                    "name": f"sageserve-{number}",
                    "timezone": zone,
                    "daysOfWeek": [_DAYS[one.begins.weekday()]],
                    "startTime": f"{one.begins:%H:%M}",
                    "endTime": f"{one.ends:%H:%M}",
                    "minReplicas": one.count,
                }
                for number, one in enumerate(parts, start=1)
            ],
        }
    ]


def _days(window: ScheduleWindow) -> Iterator[ScheduleWindow]:
    """A window day by day; one that reaches midnight ends at 23:59, the latest that AIBrix takes."""
    here = window.begins
    while here.date() < window.ends.date():
        last = here.replace(hour=23, minute=59, second=0, microsecond=0)
        if here < last:
            yield ScheduleWindow(here, last, window.count)
        here = (here.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)).replace(fold=0)
    if here < window.ends:
        yield ScheduleWindow(here, window.ends, window.count)


def schedule_component(patches: Sequence[SchedulePatch]) -> str:
    """The Kustomize component that has these patches."""
    return component({"path": one.file, "target": one.selector} for one in patches)
