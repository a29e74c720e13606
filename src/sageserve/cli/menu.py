"""Which commands there are: names and first sentences for the help page, and the module each is loaded from when it is given.

Help and completion of names load no command; a test holds the sentences to those of the commands. Read next: `main.py`.
"""

import gc
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

DO: Final = "Do"
LOOK: Final = "Look and prepare"
SERVE: Final = "Serve"
_GARBAGE: Final = 50_000  # objects between two looks for circles in what serves: it lives long, and its memory counts


class MenuEntry(NamedTuple):
    """A command or a group of commands.

    Args:
        panel: of the help page.
        about: the first sentence of its help.
        place: `module:name` in `sageserve.cli` of a function or of a `typer.Typer`; "": both are called as the command is. A
            module's EXAMPLES are those of its namesake.
        kind: the name of a class in that module that parses its words.
        hidden: it is not on the help page.
    """

    panel: str
    about: str
    place: str = ""
    kind: str = ""
    hidden: bool = False


COMMANDS: Final[dict[str, MenuEntry]] = {
    "simulate": MenuEntry(
        DO, "Play a request trace through a fleet under a strategy: cost, waste, and which promises were kept."
    ),
    "compare": MenuEntry(DO, "Compare strategies on the same requests: GPU-hours, cost, waste, and which promises were kept."),
    "size": MenuEntry(DO, "Find the fewest instances that keep every promise, and say what they cost."),
    "tune": MenuEntry(DO, "Choose a rule's marks or targets on the past."),
    "backtest": MenuEntry(
        DO, "Play policies on a fleet's past: what each would have cost, which promises it would have kept, and how sure that is."
    ),
    "reproduce": MenuEntry(DO, "Play the studies behind the paper's figures, and print ours beside the published numbers."),
    "explain": MenuEntry(
        DO, "Say why a pool has its number, why not one less or one more, and what would change it: solved again, not guessed."
    ),
    "forecast": MenuEntry(DO, "Backtest forecasters on demand and draw what comes next."),
    "plan": MenuEntry(
        DO, "Make the plan a strategy would make at an instant, and review it: `sageserve plan SCENARIO --at TIME`.", "plan:app"
    ),
    "show": MenuEntry(
        LOOK, "Tell a run in the terminal: verdict, promises, GPU-hours, demand against capacity, decisions and their reasons."
    ),
    "costs": MenuEntry(
        LOOK,
        "Say what a run cost and who pays it: by tenant, tier, model and region, idle and start cost shared out, to the cent.",
    ),
    "diff": MenuEntry(
        LOOK,
        "Say what changed between two results, in settings and numbers, with the spread over seeds deciding what is noise.",
        kind="Sided",
    ),
    "doctor": MenuEntry(
        LOOK,
        "Check Prometheus, series, rights, other writers, KEDA, pods and promises of all targets; say how to mend what is wrong.",
    ),
    "report": MenuEntry(
        LOOK, "Write a page to look at: verdict, strategies side by side, and what happened over time. Needs no network."
    ),
    "shadow-report": MenuEntry(
        LOOK,
        "Sum up a fleet that was watched, or yours: harm, help, lead, agreement of decisions, dollars, broken minutes,"
        " forecasts.",
        "shadow_report:shadow_report",
    ),
    "init": MenuEntry(LOOK, "Write a first scenario of your own: commented, ready to run, with every guess marked as one."),
    "validate": MenuEntry(
        LOOK, "Replay measured runs through the simulator: the first half of a run fits, the second half judges."
    ),
    "warm-up": MenuEntry(
        LOOK,
        "Compile the simulator once (twenty seconds or more), so that the first simulation starts at once.",
        "warm_up:warm_up",
    ),
    "scenario": MenuEntry(LOOK, "Look at scenarios: what they say, and where each value comes from.", "scenario:app"),
    "profile": MenuEntry(LOOK, "Look at engine profiles: how fast a model is on a GPU, and how far to trust it.", "profile:app"),
    "calibrate": MenuEntry(LOOK, "Make an engine profile from measurements.", "calibrate:app"),
    "trace": MenuEntry(LOOK, "Look into, convert and generate request traces.", "trace:app"),
    "up": MenuEntry(SERVE, "Start a whole fleet on this machine: engines, gateway, controller. Ctrl-C stops it."),
    "watch": MenuEntry(
        SERVE, "Decide for a fleet that others run, and only write it down: no write right, Prometheus alone. Ctrl-C stops it."
    ),
    "scaler": MenuEntry(
        SERVE,
        "Answer KEDA beside others, from what the process that watches said last; nothing is answered from what is too old.",
    ),
    "promote": MenuEntry(SERVE, "Say whether a target may be given more authority, what is missing, and the line to change."),
    "freeze": MenuEntry(SERVE, "Carry no decision out for a while: bounds stay as they are, overrides work.", "orders:freeze"),
    "thaw": MenuEntry(
        SERVE,
        "Carry decisions out again: ends freezes and plans, and gives targets their authority back after the cause is mended.",
        "orders:thaw",
    ),
    "override": MenuEntry(
        SERVE,
        "Want a number of instances instead of what decisions want; ramp, pace and budget hold all the same.",
        "orders:override",
    ),
    "apply": MenuEntry(
        SERVE, "Hand a reviewed plan to the process that acts: its counts stand in the place of decisions until the plan expires."
    ),
    "hub": MenuEntry(SERVE, "Plans for clusters that nobody here can reach: keys, sealed plans, what agents say.", "hub:app"),
    "agent": MenuEntry(
        SERVE,
        "Follow the sealed plans of a hub in one cluster, within its owner's guard; what is there stays when plans do not come.",
    ),
    "release": MenuEntry(
        SERVE, "Give the object of a target back as it was found, and only observe the target from then on.", "orders:release"
    ),
    "alerts": MenuEntry(
        SERVE, "Write alert rules for Prometheus: burn rates of each tier's error budget, failures, blindness, too few instances."
    ),
    "dashboards": MenuEntry(
        SERVE,
        "Write Grafana dashboards: error budget and times by tier, demand and capacity, decisions, batch work, what is not seen.",
    ),
    "render": MenuEntry(
        SERVE,
        "Write manifests of what runs in a cluster: who watches (`render chart`), or gateways and control (`render gateways`).",
        "render_chart:app",
    ),
    "status": MenuEntry(SERVE, "Say how the running fleet is: instances, utilisation, promises, decisions.", "up:status"),
    "top": MenuEntry(SERVE, "Watch the running fleet; Ctrl-C leaves it running."),
    "reload": MenuEntry(
        SERVE,
        "Take on changed settings while the fleet runs: keys, limits, tiers, instances, strategy. No connection is refused.",
    ),
    "rollout": MenuEntry(
        SERVE,
        "Roll out a new version of a model in the running fleet: canaries, judged by promises, then the others; or back.",
        "rollout:app",
    ),
    "down": MenuEntry(
        SERVE,
        "Stop the running fleet and every process of it: first the gateway, which finishes what it has, then what is behind it.",
        "up:down",
    ),
    "gateway": MenuEntry(SERVE, "Serve OpenAI's API in front of all engines of a scenario."),
    "envoy": MenuEntry(
        SERVE, "Let an Envoy send requests where our gateways would: routes and instances as files that it follows.", "envoy:app"
    ),
    "control": MenuEntry(SERVE, "Control a fleet: hear, decide, act, write down.", hidden=True),
    "engine": MenuEntry(SERVE, "Serve an emulated engine: OpenAI-compatible, timed by an engine profile, without a GPU."),
    "batch": MenuEntry(SERVE, "Requests that may wait: hand in, watch, fetch.", "batch:app"),
    "swarm": MenuEntry(
        SERVE,
        "Let faults fall upon the live control code in virtual time, and check that its laws hold.",
    ),
    "key": MenuEntry(SERVE, "API keys of the gateway.", "gateway:key_app"),
}


def load(name: str) -> Any:  # noqa: ANN401 # click's command; typer may bring its own click
    """The command itself, with its options."""
    import_module("sageserve.cli.kernels").use_cache()  # before anything that compiles is imported
    entry = COMMANDS[name]
    file, _, attribute = (entry.place or f"{name}:{name}").partition(":")
    module = import_module(f"sageserve.cli.{file}")
    found = getattr(module, attribute)
    holder = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=name, rich_help_panel=entry.panel)
    else:
        examples = getattr(module, "EXAMPLES", None) if file == name else None
        kind = getattr(module, entry.kind) if entry.kind else None
        holder.command(name=name, cls=kind, epilog=examples, rich_help_panel=entry.panel, hidden=entry.hidden)(found)
    return get_group(holder).commands[name]


class Menu(TyperGroup):
    """The root's commands: as in `COMMANDS` until one is given."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 # typer's own
        super().__init__(**settings)
        for name, one in COMMANDS.items():
            self.commands[name] = TyperCommand(
                name, help=one.about, rich_help_panel=one.panel, hidden=one.hidden, rich_markup_mode="rich"
            )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 # click's; typer may bring its own click
        """Which command the words name, loaded."""
        name, found, rest = super().resolve_command(ctx, args)
        if name in COMMANDS and COMMANDS[name].panel == SERVE:
            gc.set_threshold(_GARBAGE)
        return name, load(name) if name in COMMANDS and found is not None else found, rest
