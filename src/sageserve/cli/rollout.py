"""`sageserve rollout`: begin a new version of a model in the fleet that runs, look at it, stop it, take it back.

Speaks to control directly, with the secret of the state folder, and writes each act into the audit log. Decides nothing.
Read next: `live/control/rollout_routes.py`; docs/how-to/roll-out.md.
"""

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from sageserve.base.errors import ConfigError
from sageserve.cli.acts import note_act
from sageserve.cli.extras import need
from sageserve.cli.running import Running, State, ask_control, refuse_watched, running, state_folder
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from pathlib import Path

    from sageserve.base.config import RolloutSettings, Scenario
    from sageserve.live.control.live_rollouts import RolloutStatus

EXAMPLES = """[bold]Examples[/bold]

  sageserve rollout begin rollout.yaml [dim]— the one that its `rollouts` says, which `simulate` plays[/dim]

  sageserve rollout show --wait [dim]— how far it is, until it is over[/dim]

  sageserve rollout stop qwen3-32b [dim]— nothing more becomes new[/dim]

  sageserve rollout back qwen3-32b [dim]— the old version again, also of one that is done[/dim]
"""
_LOOK_S: Final = 2.0
_PATIENCE_S: Final = 30.0  # what judging takes is loaded first, and a machine may be busy
_UNDER_WAY: Final = frozenset(["waiting", "canary", "rolling", "back"])

app = typer.Typer(
    help="Roll out a new version of a model in the running fleet: canaries, judged by promises, then the others; or back.",
    no_args_is_help=True,
    epilog=EXAMPLES,
    rich_markup_mode="rich",
)
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of lines")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="whose latest rollout is meant")]


@app.command()
def begin(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="a file with `rollouts`; it may extend that of the fleet")],
    model: Annotated[str | None, typer.Option(metavar="NAME", help="of its rollouts, that of this model")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="lay a setting over the file")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout at the next look at the fleet: its canaries first. `at` is of simulations, and not waited for."""
    need("live")
    from sageserve.data.scenarios.load import load_scenario

    found, folder = _fleet(state)
    one = _chosen(load_scenario(scenario, overrides=overrides or ()), scenario, model)
    told = _ask(found, "POST", "", one.model_dump_json(exclude_none=True).encode())
    command = one.engine.command if one.engine else ("the emulated engine",)
    whole = sha256("\0".join(command).encode()).hexdigest()[:16]  # arguments may hold what nobody should read
    note_act(folder, "rollout begin", {"model": one.model, "version": told[0].version, "command": command[0], "sha256": whole})
    _tell(told, folder, as_json=as_json)


@app.command()
def show(
    state: State = None,
    wait: Annotated[bool, typer.Option("--wait", help="stay until none is under way; Ctrl-C leaves it so")] = False,
    as_json: AsJson = False,
) -> None:
    """Show all rollouts that were begun since the fleet is up, the latest first."""
    need("live")
    found, folder = _fleet(state)
    told, shown = _ask(found, "GET", ""), ""
    while wait and any(one.step in _UNDER_WAY for one in told):
        for one in told:
            if one.step in _UNDER_WAY and (line := _line(one)) != shown:
                typer.echo(line, err=True)
                shown = line
        time.sleep(_LOOK_S)
        told = _ask(found, "GET", "")
    _tell(told, folder, as_json=as_json)


@app.command()
def stop(model: Model, state: State = None, as_json: AsJson = False) -> None:
    """Stop a rollout: what is new stays, and nothing more becomes new."""
    _order(model, "stop", state, as_json=as_json)


@app.command()
def back(model: Model, state: State = None, as_json: AsJson = False) -> None:
    """Take a rollout back, also one that is done or stopped: the old version again, as carefully as it went."""
    _order(model, "back", state, as_json=as_json)


def _order(model: str, what: str, state: "Path | None", *, as_json: bool) -> None:
    need("live")
    found, folder = _fleet(state)
    told = _ask(found, "POST", "/ask", msgspec.json.encode({"model": model, "what": what}))
    note_act(folder, f"rollout {what}", {"model": model, "version": told[0].version})
    if as_json:
        typer.echo(answer_json(told))
    else:
        typer.echo(
            f"{model}: version {told[0].version} is to be {'stopped' if what == 'stop' else 'taken back'} at the next look"
        )


def _fleet(state: "Path | None") -> "tuple[Running, Path]":
    found = running(state)
    refuse_watched(found)
    return found, state_folder(state)


def _chosen(scenario: "Scenario", name: str, model: str | None) -> "RolloutSettings":
    """The rollout that is meant.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = [one for one in scenario.rollouts if model in {None, one.model}]
    if len(found) == 1:
        return found[0]
    models = ", ".join(sorted({one.model for one in scenario.rollouts}))
    if not scenario.rollouts:
        raise ConfigError(
            f"{name} rolls nothing out", hint="give it `rollouts`, such as [{model: NAME, engine: {command: [...]}}]"
        )
    if not found:
        raise ConfigError(f"{name} rolls out nothing of {model!r}", hint=f"it has rollouts of {models}")
    one = len({each.model for each in found}) == 1
    raise ConfigError(
        f"{name} has {len(found)} rollouts of {found[0].model if one else models}",
        hint="begin one at a time: a file with that one alone" if one else "begin one at a time: --model NAME",
    )


def _ask(found: Running, method: str, path: str, body: bytes = b"") -> "tuple[RolloutStatus, ...]":
    """What control answers.

    Raises:
        SageServeError: it refuses, or does not answer.
    """
    from sageserve.live.control.live_rollouts import RolloutStatus

    def read(answer: bytes) -> tuple[RolloutStatus, ...]:
        if method == "GET":
            return msgspec.json.decode(answer, type=tuple[RolloutStatus, ...])
        return (msgspec.json.decode(answer, type=RolloutStatus),)

    hint = "it is started again when it dies: try once more; `sageserve rollout show` says what it knows"
    return ask_control(found, f"/fleet/rollouts{path}", read, hint=hint, method=method, body=body, patience_s=_PATIENCE_S)


def _line(one: "RolloutStatus") -> str:
    return f"{one.model}: version {one.version}, {one.step.value}, {one.new} of {one.new + one.others} instances; {one.waits}"


def _tell(told: "tuple[RolloutStatus, ...]", folder: "Path", *, as_json: bool) -> None:
    from sageserve.show.rolls import STEPS, words

    if as_json:
        typer.echo(answer_json(told))
        return
    if not told:
        typer.echo("nothing was rolled out since the fleet is up")
        return
    from sageserve.data.scenarios.load import load_scenario

    scenario = load_scenario(folder / "scenario.yaml")
    for one in told:
        rest = f" {one.waits}" if one.waits else ""
        typer.echo(
            f"{one.model}: version {one.version}, {STEPS[one.step]}; {one.new} of {one.new + one.others} instances are new.{rest}"
        )
        for tier in one.kept:
            typer.echo(
                f"  {tier.tier}, of which {tier.promised:.4g} is promised: the new one kept"
                f" {_share(tier.new_kept, tier.new_asked)}, the old one {_share(tier.old_kept, tier.old_asked)}"
            )
        for at_s, roll in one.steps:
            typer.echo(f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at_s))}  {words(roll, scenario)}")


def _share(kept: int, asked: int) -> str:
    return f"{kept / asked:.4f} of {asked:,}" if asked else "nothing of 0"
