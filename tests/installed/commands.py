"""Every command that answers in JSON, with arguments that keep it short, and the extra it cannot do without.

`test_json.py` refuses a command that is missing here. Nothing is compiled: 200 requests are played in Python. Read next:
`conftest.py`.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from typer.core import TyperGroup
from typer.main import get_command

from sageserve.cli.main import app
from sageserve.cli.menu import COMMANDS, load

SMALL: Final = tuple(
    word for setting in ("requests=200", "length=30m", "bursts=[]") for word in ("--set", f"workload.generate.{setting}")
)
TINY: Final = (
    *SMALL[:2],
    "--set",
    "workload.generate.length=10m",
    "--set",
    "workload.generate.history=0",
    "--set",
    "fleet.start=2",
)
FEW: Final = tuple(
    word
    for setting in ("requests=100", "length=2m", "history=0", "bursts=[]")
    for word in ("--set", f"workload.generate.{setting}")
)
POOL: Final = "us-east/llama-3.3-70b"
CLUSTER: Final = "live.clusters={east: {prometheus: {url: 'http://127.0.0.1:9'}}}"  # nobody listens there: that is found
PROFILES: Final = ("llama-3.1-8b/h100-80gb/tp1", "llama-3.1-8b/l40s/tp1")


class Try(NamedTuple):
    """How a command is called.

    Args:
        words: after its name; `{stage}` stands for the folder of what earlier commands made, `{state}` for a fleet's.
        needs: the extra without which it refuses; "" for none.
        code: its exit code with that extra; when it is 2, a mistake, nothing may be on stdout.
        lines: it prints a JSON object a line instead of one document.
        bare: it is tried without extras alone, for it takes seconds and none of them takes part in it.
    """

    words: tuple[str, ...]
    needs: str = ""
    code: int = 0
    lines: bool = False
    bare: bool = False

    def given(self, stage: Path, state: Path | None) -> list[str]:
        """The words, with places for what stands for them."""
        return [word.replace("{stage}", str(stage)).replace("{state}", str(state)) for word in self.words]


TRIES: Final = {
    "simulate": Try(("quickstart", "--strategy", "lt-ua", *SMALL)),
    "compare": Try(
        ("quickstart", "--strategies", "reactive,foresight,oracle", "--seeds", "1", "--workers", "1", *SMALL), bare=True
    ),
    "size": Try(("quickstart", "--workers", "1", *FEW, "--set", "tiers.chat.ttft=9s"), bare=True),
    "tune": Try(("quickstart", "--workers", "1", *TINY), bare=True),
    "show": Try(("{stage}/run",)),
    "costs": Try(("{stage}/run",)),
    "diff": Try(("{stage}/run", "{stage}/run", "--anyway")),
    "reproduce": Try(("paper", "--only", "trigger", "--workers", "1", *TINY), bare=True),
    "validate": Try(("--data", "{stage}/measured")),
    "explain": Try(("{stage}/run", POOL)),
    "forecast": Try(("quickstart", "--forecasters", "blend", "--bin", "15m", "--horizon", "30m", "--only", f"{POOL}/chat")),
    "backtest": Try(("quickstart", "{stage}/trace.csv", "--out", "{stage}/backtest"), code=2),
    "watch": Try(("quickstart", "--prometheus", "http://127.0.0.1:9"), needs="live", code=2),
    "shadow-report": Try(("{stage}/run",), code=2),
    "status": Try(("--state", "{state}"), needs="live"),
    "reload": Try(("--state", "{state}", "--dry-run"), needs="live"),
    "swarm": Try(("--seeds", "2", "--workers", "1"), needs="live"),
    "doctor": Try(("local", "--set", CLUSTER), needs="live", code=1, lines=True),
    "scenario show": Try(("quickstart",)),
    "scenario list": Try(()),
    "profile list": Try(()),
    "profile fit": Try(("--points", "{stage}/trace.csv", "--out", "{stage}/fitted.yaml"), code=2),
    "profile show": Try(PROFILES[:1]),
    "profile compare": Try(PROFILES),
    "calibrate benchmark": Try(("http://127.0.0.1:9", "--model", "m", "-o", "{stage}/profile.yaml"), needs="live", code=2),
    "plan make": Try(("quickstart", "--at", "20m", "--strategy", "lt-ua", *SMALL)),
    "plan diff": Try(("{stage}/plan.json", "{stage}/plan.json")),
    "plan show": Try(("{stage}/plan.json",)),
    "trace formats": Try(()),
    "trace inspect": Try(("{stage}/trace.csv",)),
    "batch status": Try(("--state", "{state}"), needs="live"),
    "batch backup": Try(("{stage}/queue.copy", "--state", "{state}", "--replace"), needs="live"),
    "batch restore": Try(("{stage}/queue.copy", "--state", "{state}-again"), needs="live"),
    "batch erase": Try(("somebody", "--yes", "--state", "{state}"), needs="live"),
    "rollout begin": Try(("quickstart", "--state", "{stage}/run"), needs="live", code=2),
    "rollout show": Try(("--state", "{state}"), needs="live"),
    "rollout stop": Try(("llama-3.1-8b", "--state", "{stage}/run"), needs="live", code=2),
    "rollout back": Try(("llama-3.1-8b", "--state", "{stage}/run"), needs="live", code=2),
    "apply": Try(("{stage}/none.json", "--begin", "2026-11-30T14:00", "--state", "{stage}/run"), needs="kubernetes", code=2),
    "hub publish": Try(
        ("quickstart", "{stage}/none.json", "--begin", "2026-11-30T14:00", "--key", "{stage}/none.key", "--to", "{stage}/plans"),
        needs="agents",
        code=2,
    ),
    "hub status": Try(("{stage}/none",), code=2),
    "promote": Try(("t", "floor", "--state", "{stage}/run"), needs="live", code=2),
    "key new": Try(("someone",), needs="live"),
}


REFUSED: Final = {
    "up": Try(("--state", "{state}", "--port", "0"), needs="live"),
    "up --detach": Try(("--state", "{state}", "--port", "0"), needs="live"),
    "dashboards": Try(("quickstart", "--out", "{stage}/boards"), needs="grafana"),
    "top": Try(("--state", "{state}"), needs="live"),
    "gateway": Try(("local", "--port", "0"), needs="live"),
    "envoy bootstrap": Try(("quickstart", "--folder", "{stage}/envoy"), needs="live"),
    "envoy run": Try(("--folder", "{stage}/envoy", "--state", "{state}"), needs="live"),
    "scaler": Try(("local", "--leader", "http://127.0.0.1:9"), needs="live"),
    "control": Try(("{state}", "--http", "http://127.0.0.1:9", "--gateway", "http://127.0.0.1:9"), needs="live"),
    "engine": Try((), needs="live"),
    "calibrate counters": Try(("--prometheus", "http://127.0.0.1:9", "--out", "{stage}/counters.yaml"), needs="live"),
    "batch submit": Try(("{stage}/trace.csv", "--endpoint", "/v1/completions", "--state", "{state}"), needs="live"),
    "batch fetch": Try(("batch_0", "--state", "{state}"), needs="live"),
    "freeze": Try(("t", "--for", "1h", "--state", "{state}"), needs="kubernetes"),
    "thaw": Try(("t", "--state", "{state}"), needs="kubernetes"),
    "override": Try(("t=2", "--for", "1h", "--why", "a test", "--state", "{state}"), needs="kubernetes"),
    "release": Try(("t", "--state", "{state}"), needs="kubernetes"),
    "hub key": Try(("none", "--to", "{stage}"), needs="agents"),
    "agent": Try(("local", "--cluster", "c", "--plans", "{stage}", "--key", "none.pub", "--state", "{state}"), needs="agents"),
    "batch cancel": Try(("batch_0", "--state", "{state}"), needs="live"),
    "simulate quickstart": Try(
        ("--strategy", "foresight", "--set", "strategy.foresight.forecaster=ets", *SMALL), needs="forecast"
    ),
    "forecast quickstart": Try(("--forecasters", "arima"), needs="forecast"),
    "compare quickstart": Try(("--on", "ray", *SMALL), needs="ray"),
}
"""More that a bare install refuses."""


@cache
def loaded() -> TyperGroup:
    """The application with all its commands, which it loads by itself when they are given."""
    tree = get_command(app)
    assert isinstance(tree, TyperGroup)
    for name in COMMANDS:
        tree.commands[name] = load(name)
    return tree


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words, those of groups included, as the application registers them."""

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 # click's type; typer may bring its own click
        inner = getattr(command, "commands", None)
        if inner is None:
            yield " ".join(words), command
            return
        for name, each in inner.items():
            yield from below(each, (*words, name))

    return below(loaded(), ())


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode("utf-8", "replace") if entry.name.isdigit() else ""
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in line:
            found.append(line.replace("\0", " "))
    return found


def answering_in_json() -> set[str]:
    """The words of every command that has --json."""
    return {words for words, command in commands() if any("--json" in parameter.opts for parameter in command.params)}
