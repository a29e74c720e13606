"""`sageserve batch erase`: everything that is kept of a tenant's batches, gone.

Speaks to control with the secret of the state folder, and writes the act into the audit log. Read next:
`live/batches/erasure.py`; docs/reference/security.md.
"""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.running import Running, State, ask_control, refuse_watched, running, state_folder
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.live.batches.erasure import Erased

_WITHIN_S: Final = 120.0  # that requests under way have to end
_LOOK_S: Final = 0.5
_PATIENCE_S: Final = 60.0


def erase(
    tenant: Annotated[str, typer.Argument(metavar="KEY_NAME", help="name of the key that batches and files came with")],
    yes: Annotated[bool, typer.Option("--yes", help="do not ask again")] = False,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a sentence")] = False,
) -> None:
    """Erase all batches, files and answers of a tenant; those under way are cancelled. It cannot be undone."""
    need("live")
    if not tenant.strip():
        raise ConfigError("KEY_NAME is empty", hint="the name of a key: `sageserve scenario show` lists live.keys")
    found, folder = running(state), state_folder(state)
    refuse_watched(found)
    if not yes and (as_json or not sys.stdin.isatty()):
        raise ConfigError(f"nothing of {tenant} was erased: nobody is there to be asked again", hint="say --yes")
    if not yes:
        typer.confirm(f"Erase all batches, files and answers of {tenant}?", abort=True, err=True)
    files = batches = 0
    end = time.monotonic() + _WITHIN_S  # the command line waits for a process
    while True:
        told = _ask(found, tenant)
        files, batches = files + told.files, batches + told.batches
        if not told.left or time.monotonic() > end:
            break
        time.sleep(_LOOK_S)
    note_act(folder, "batch erase", {"tenant": tenant, "files": files, "batches": batches, "left": told.left})
    if as_json:
        typer.echo(answer_json({"tenant": tenant, "files": files, "batches": batches, "left": told.left}))
    else:
        typer.echo(f"erased {batches:,} batches and {files:,} files of {tenant}")
    if told.left:
        raise SageServeError(f"{told.left} batches of {tenant} still end", hint="do it again in a while")


def _ask(found: Running, tenant: str) -> "Erased":
    """What control answers.

    Raises:
        SageServeError: it does not.
    """
    from sageserve.live.batches.erasure import Erased

    return ask_control(
        found,
        "/fleet/erase",
        msgspec.json.Decoder(Erased).decode,
        hint="what was erased is; do it again for the rest",
        method="POST",
        body=msgspec.json.encode({"tenant": tenant}),
        patience_s=_PATIENCE_S,
    )
