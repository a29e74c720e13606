"""`sageserve reload`: give the running fleet the settings that its file has now, without an outage.

Says what differs, refuses what a running fleet cannot take on, and leaves it as it was when anything fails. The answer goes to
stdout. Read next: `live/reload.py`, which does it; docs/how-to/operate.md.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import structs

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need, need_for
from sageserve.cli.running import FLEET, Running, State, refuse_watched, running, state_folder
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.live.reload import Plain, RefusedChange, SettingChange

EXAMPLES = """[bold]Examples[/bold]

  sageserve reload --dry-run [dim]— what would change[/dim]

  sageserve reload

  sageserve reload --set strategy.name=reactive [dim]— and keep it for later reloads[/dim]

  kill -HUP PID [dim]— the same, of a supervisor without a terminal (`up --detach`, systemd)[/dim]
"""
_LOCK = "reload.lock"
_FACT = 4000  # characters of names of settings that the audit log holds
_DIGEST = 8  # of the 64 of a key's hash
_WIDE = 80  # characters of a value that are shown


def reload(
    state: State = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="lay a setting over the file, for later reloads, too")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would change, and change nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of lines")] = False,
) -> None:
    """Take on changed settings while the fleet runs: keys, limits, tiers, instances, strategy. No connection is refused."""
    import asyncio  # late: it takes a tenth of what --help takes

    need("live")
    folder = state_folder(state)
    refuse_watched(running(state))  # refuses a folder of which no fleet of ours runs
    from sageserve.base.kernel import run_plain

    run_plain()  # settings are tried, nothing is computed
    with _alone(folder):
        found = running(state)  # as the reload before this one left it
        given = [*found.overrides, *(overrides or ())]
        from sageserve.data.scenarios.load import load_scenario
        from sageserve.live.reload import SETTINGS, apply, changes, check, refused, settled

        held = (folder / SETTINGS).read_bytes()
        after = load_scenario(found.source, overrides=given)
        need_for(after)
        before = load_scenario(folder / SETTINGS)
        differ = changes(before, after)
        barred = refused(before, differ, settled(folder, found.secret, after))
        if not barred:
            check(after)
        due = bool(differ) or mark_of(held) != found.applied
        if due and not barred and not dry_run:
            asyncio.run(apply(folder, after))
            now = structs.replace(found, overrides=tuple(given), applied=mark_of((folder / SETTINGS).read_bytes()))
            write_fleet(folder, now)
            facts = {"changed": ", ".join(one.key for one in differ)[:_FACT], "settings": now.applied}
            note_act(folder, "reload", facts)
        _tell(differ, barred, applied=due and not barred and not dry_run, as_json=as_json)
    if barred:
        raise ConfigError(
            f"a running fleet cannot change {', '.join(one.key for one in barred)}; nothing was changed",
            hint="put them back and reload, or `sageserve down --drain` and `sageserve up` again",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One reload at a time.

    Raises:
        SageServeError: another one is at work.
    """
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SageServeError("another reload is at work", hint="wait until it is done") from None
        yield
    finally:
        os.close(lock)


def write_fleet(folder: Path, found: Running) -> None:
    """Say what runs."""
    from sageserve.live.private import write_private

    write_private(folder / FLEET, msgspec.json.encode(found))


def mark_of(content: bytes) -> str:
    """Tells whether processes have the settings that a file has now."""
    return sha256(content).hexdigest()


def _tell(differ: "tuple[SettingChange, ...]", barred: "tuple[RefusedChange, ...]", *, applied: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(answer_json({"changes": differ, "refused": barred, "applied": applied}))
        return
    why = {one.key: one.why for one in barred}
    for one in differ:
        before, after = _shown(one.before), _shown(one.after)
        line = f"+ {one.key}: {after}" if one.before is None else f"- {one.key}: {before}"
        if one.before is not None and one.after is not None:
            line = f"  {one.key}: {before} -> {after}"
        typer.echo(f"{line}   refused: {why[one.key]}" if one.key in why else line)
    if not barred:
        typer.echo(("reloaded" if applied else "not changed yet") if differ or applied else "nothing has changed")


def _shown(value: "Plain") -> str:
    """A value on a line; of a key's hash as much as tells it from others."""
    if isinstance(value, dict) and isinstance(digest := value.get("sha256"), str):
        value = {**value, "sha256": f"{digest[:_DIGEST]}…"}
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"
