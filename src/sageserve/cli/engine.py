"""`sageserve engine`: an emulated engine, for one machine without a GPU, for tests and for drills.

Knows options; stdout is the engine's URL once it listens, and nothing else. Read next: `live/emulator/run.py`,
docs/reference/emulated-engine.md.
"""

from typing import Annotated

import typer

from sageserve.cli.durations import time_of
from sageserve.cli.extras import need

EXAMPLES = """[bold]Examples[/bold]

sageserve engine --port 8000 --profile llama-3.1-8b/h100-80gb/tp8 --model llama

sageserve engine --speed 10 --faults [dim]— ten times as fast; POST /_fault breaks it[/dim]

sageserve engine --start-delay 30s --fault crash-after=100
"""


def engine(  # noqa: PLR0913, PLR0917 # one argument per option
    profile: Annotated[
        str, typer.Option(metavar="NAME_OR_FILE", help="engine profile: a name of the library, FILE or FILE#NAME")
    ] = "llama-3.1-8b/h100-80gb/tp8",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="it serves under", show_default="the profile's model")] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 0,
    speed: Annotated[float, typer.Option(min=0.001, max=1000, help="10: ten times as fast as real")] = 1.0,
    region: Annotated[str, typer.Option(metavar="NAME", help="where it says it is")] = "",
    context: Annotated[
        int | None, typer.Option(min=2, metavar="TOKENS", help="prompt and answer", show_default="131072 or the KV cache")
    ] = None,
    output_mean: Annotated[float, typer.Option(min=1, metavar="TOKENS", help="of answers whose length is not fixed")] = 200.0,
    seed: Annotated[int, typer.Option(min=0, help="of those lengths")] = 0,
    prefix_hits: Annotated[float, typer.Option(min=0, max=1, metavar="SHARE", help="of prompts, in the prefix cache")] = 0.0,
    start_delay: Annotated[str, typer.Option(metavar="DURATION", help="before it listens, as loading takes")] = "0s",
    fail_start: Annotated[bool, typer.Option("--fail-start", help="exit with an error instead of serving")] = False,
    speculative: Annotated[
        str | None, typer.Option(metavar="SETTINGS", help='drafts: "{tokens: 3, acceptance: 0.7, draft: 0.05}"')
    ] = None,
    adapters: Annotated[
        str | None, typer.Option(metavar="SETTINGS", help='slots for LoRA adapters: "{slots: 4, rank: 16}"')
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a LoRA adapter that requests may name as model; may be repeated")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="hang, crash-after, errors, plain-errors, reset-after, slow, metrics, health"),
    ] = None,
    faults: Annotated[bool, typer.Option("--faults", help="let POST /_fault change what is wrong, for drills")] = False,
) -> None:
    """Serve an emulated engine: OpenAI-compatible, timed by an engine profile, without a GPU.

    Prints its URL when it listens. SIGTERM lets answers finish.
    """
    need("live")
    from sageserve.base.errors import ConfigError
    from sageserve.core.engine.timing import row_of
    from sageserve.data.profiles.library import adapting, profile_named, speculating
    from sageserve.live.emulator.engine import Served
    from sageserve.live.emulator.faults import read_faults
    from sageserve.live.emulator.requests import ServedLimits
    from sageserve.live.emulator.run import Starting, run
    from sageserve.live.emulator.text import AnswerLengths

    listed = profile_named(profile)
    if speculative is not None:
        listed = speculating(listed, speculative)
    if adapters is not None:
        listed = adapting(listed, adapters)
    elif adapter and listed.profile.adapters is None:
        raise ConfigError("the engine has no slots for LoRA adapters", hint="add --adapters '{slots: 4}'")
    found = listed.profile
    name, room = model or listed.model or "model", min(context or 131_072, found.kv_tokens)
    _refuse_twice([name, *(adapter or ())])
    limits = ServedLimits(name, room, AnswerLengths(output_mean, seed), prefix_hits, tuple(adapter or ()))
    served = Served(limits, row_of(found), speed, f"e{port}", faults, region)
    starting = Starting(host, port, time_of("--start-delay", start_delay), fail_start)
    run(served, starting, read_faults(fault or []), typer.echo)


def _refuse_twice(names: list[str]) -> None:
    from sageserve.base.errors import ConfigError

    if twice := next((one for one in names if names.count(one) > 1), None):
        raise ConfigError(
            f"{twice!r} names two: each adapter has a name of its own, other than the model's", hint="check --adapter"
        )
