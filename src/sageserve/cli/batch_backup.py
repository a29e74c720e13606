"""`sageserve batch backup` and `restore`: the queue of a state folder as one file, and back.

Must not read a table. Read next: `live/store/backup.py`, docs/how-to/operate.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.running import State, lives, state_folder
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.live.store.backup import Copied

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a sentence")]
Replace = Annotated[bool, typer.Option("--replace", help="give up what is there")]


def backup(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="of the copy, which holds prompts and answers: keep it safe")],
    state: State = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Copy all files, batches, lines and answers of a fleet into one file; the fleet may run meanwhile."""
    folder = _folder(state)
    from sageserve.live.store.backup import back_up

    if out.exists() and not replace:
        raise ConfigError(f"{out} is there already", hint="another name, or --replace")
    found = back_up(folder, out)
    note_act(folder, "batch backup", {"to": str(out.absolute()), "batches": found.batches})
    _tell(f"wrote {out}", found, as_json=as_json)


def restore(
    copy: Annotated[Path, typer.Argument(metavar="FILE", help="as `batch backup` made it")],
    state: State = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Put a copy in the place of a fleet's queue, while the fleet is down; unfinished batches go on at the next `up`."""
    folder = _folder(state)
    from sageserve.live.private import make_private
    from sageserve.live.store.backup import check_copy
    from sageserve.live.store.backup import restore as put_back
    from sageserve.live.supervisor.service import only_one

    if not copy.is_file():
        raise ConfigError(f"there is no file {copy}", hint="`sageserve batch backup FILE` makes one")
    if lives(folder):
        raise ConfigError(f"a fleet runs in {folder}", hint="stop it first: sageserve down --drain")
    check_copy(copy, folder, replace=replace)  # one that is refused leaves no folder behind
    make_private(folder)
    with only_one(folder):  # no fleet begins meanwhile
        found = put_back(copy, folder, replace=replace)
    note_act(folder, "batch restore", {"from": str(copy.absolute()), "batches": found.batches})
    _tell(f"restored into {folder}", found, as_json=as_json)


def _folder(state: Path | None) -> Path:
    """The folder whose queue is meant.

    Raises:
        ConfigError: its queue is elsewhere: in PostgreSQL, or in memory.
    """
    need("live")
    from sageserve.data.scenarios.load import load_scenario

    folder = state_folder(state)
    if not (folder / "scenario.yaml").is_file():
        return folder  # nothing ran there yet
    live = load_scenario(folder / "scenario.yaml").live
    if live is not None and live.store == "memory":
        raise ConfigError("the queue of this fleet is in memory", hint="live.store: sqlite keeps one that can be copied")
    if live is not None and live.store != "sqlite":
        raise ConfigError("the queue of this fleet is in PostgreSQL", hint="pg_dump and pg_restore copy it")
    return folder


def _tell(done: str, found: "Copied", *, as_json: bool) -> None:
    if as_json:
        typer.echo(answer_json(found))
    else:
        typer.echo(f"{done}: {found.batches:,} batches, {found.jobs:,} lines, {found.files:,} files, {found.bytes / 1e6:,.1f} MB")
