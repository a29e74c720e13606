"""A plan as files for a repository, and what is said about them: counts at once, or schedules.

Knows options and words; `live/kubernetes/` makes the patches. Read next: `plan.py`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from sageserve.base.config.clusters import TargetSettings
from sageserve.base.errors import ConfigError
from sageserve.data.results.plans import PlanFile
from sageserve.live.kubernetes.patches import KUSTOMIZATION, kustomization, patches_of
from sageserve.live.kubernetes.schedules import (
    KIND_OF,
    ScheduleFormat,
    ScheduleWindow,
    comes_twice,
    schedule_component,
    schedules_of,
)

_YEARS = (1970, 2200)  # in which zones and calendars can be reckoned with


def wall_clock(form: str, begin: str | None, zone: str) -> datetime | None:
    """The plan's instant by the wall clock; None where the format has no times.

    Raises:
        ConfigError: it is missing, is no time or beyond the calendar; or there is no such zone.
    """
    if form == "kustomize":
        return None
    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"--timezone: there is no zone {zone!r}", hint="an IANA name, such as Europe/Berlin") from None
    if begin is None:
        raise ConfigError(
            f"--format {form} needs --begin",
            hint="a plan counts from its scenario's start: say when its instant is, such as 2026-11-30T14:00",
        )
    try:
        found = datetime.fromisoformat(begin)
    except ValueError:
        raise ConfigError(f"--begin: {begin!r} is no time", hint="such as 2026-11-30T14:00, in --timezone") from None
    if not _YEARS[0] <= found.year <= _YEARS[1]:
        raise ConfigError(f"--begin: the year {found.year} is none for a schedule", hint="such as 2026-11-30T14:00")
    return found.replace(tzinfo=where) if found.tzinfo is None else found.astimezone(where)


def counts_files(file: PlanFile, targets: Mapping[str, TargetSettings]) -> dict[str, str]:
    """Patches with the plan's targets, by name of the file."""
    made = f"sha256-{file.solved.plan.input_hash[:12]}"  # bare, one such as 123456789e01 would be read as a number
    marks = {"sageserve.io/plan": made, "sageserve.io/strategy": file.strategy}
    patches = patches_of({line.pool: line.target for line in file.pools}, targets, marks)
    _say_left(file, {one.pool for one in targets.values()}, "no target has them")
    for one in patches:
        bound = "" if one.count == one.wanted else f" (the plan's {one.wanted} is beyond the target's bounds)"
        typer.echo(f"{one.target}: {one.field} = {one.count}{bound}", err=True)
    return {KUSTOMIZATION: kustomization(patches), **{one.file: one.text for one in patches}}


def schedule_files(file: PlanFile, targets: Mapping[str, TargetSettings], form: str, begins: datetime) -> dict[str, str]:
    """Patches with schedules, by name of the file.

    Raises:
        ConfigError: no target is of the kind that has them, or a window begins or ends in an hour that comes twice.
    """
    which: ScheduleFormat = "keda-cron" if form == "keda-cron" else "aibrix-schedules"
    patches = schedules_of(file, targets, which, begins)
    if not patches:
        raise ConfigError(f"no target of the plan's pools is a {KIND_OF[which]}", hint=f"--format {form} is for these alone")
    twice = next(
        (at for one in patches for window in one.windows for at in (window.begins, window.ends) if comes_twice(at)), None
    )
    if twice is not None:
        said = f"{twice:%Y-%m-%d %H:%M} comes twice in {begins.tzinfo}, whose clock is put back then: a schedule cannot say which"
        raise ConfigError(said, hint="--timezone UTC, with --begin in UTC too")
    _say_left(file, {targets[one.target].pool for one in patches}, f"no {KIND_OF[which]} has them")
    for one in patches:
        typer.echo(f"{one.target}: {', '.join(map(_said, one.windows))}", err=True)
    if patches[0].windows[-1].ends < datetime.now(UTC):
        typer.echo(f"all of it is in the past: is --begin {begins:%Y-%m-%d %H:%M} what you mean?", err=True)
    again = "a year" if which == "keda-cron" else "a week"
    typer.echo(
        f"the last window ends {patches[0].windows[-1].ends:%Y-%m-%d %H:%M}; all come again {again} later: render anew before",
        err=True,
    )
    return {KUSTOMIZATION: schedule_component(patches), **{one.file: one.text for one in patches}}


def _said(window: ScheduleWindow) -> str:
    return f"{window.count} from {window.begins:%a %H:%M} to {window.ends:%a %H:%M}"


def _say_left(file: PlanFile, placed: set[str], why: str) -> None:
    left = [line.pool for line in file.pools if line.pool not in placed]
    if left:
        typer.echo(f"left out, for {why}: {', '.join(left)}", err=True)
