"""The options of every command that takes a trace: one block, one value.

    @takes_trace()
    def simulate(scenario: ..., options: TraceOptions, ...) -> None: ...

gives the command `--trace`, `--column`, `--map`, `--from`, `--until`, `--load` and the rest in place of its parameter `options`.
Read next: `data/traces/options.py` for what they mean, `data/traces/requests.py` for what is done with them.
"""

import functools
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from sageserve.data.traces.options import DEFAULTS, DROPPED_MAX, Expansion, Prompts, TraceOptions

_PANEL: Final = "Requests"

_Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="requests from a file; several are placed by their dates, or laid end to end",
        show_default="generated",
        rich_help_panel=_PANEL,
    ),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="OURS=THEIRS",
        help="say what one column is, dotted where it is nested: prompt=usage.prompt_tokens",
        rich_help_panel=_PANEL,
    ),
]
_Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FROM=TO",
        help="rename models, tiers or regions; '*=TO' renames all unknown ones",
        rich_help_panel=_PANEL,
    ),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="begin there: a duration from the start, a date, or 'first' arrival",
        rich_help_panel=_PANEL,
    ),
]
_Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="end there: a duration from the start, or a date", rich_help_panel=_PANEL),
]
_Load = Annotated[
    float, typer.Option("--load", metavar="X", help="X times the rate: thinned or replicated", rich_help_panel=_PANEL)
]
_TimeScale = Annotated[float, typer.Option("--time-scale", metavar="X", help="play it X times as long", rich_help_panel=_PANEL)]
_AllAt = Annotated[
    str | None,
    typer.Option("--all-at", metavar="TIME", help="when requests without a time arrive, such as 0", rich_help_panel=_PANEL),
]
_Rate = Annotated[
    float | None,
    typer.Option("--rate", metavar="X", help="or how many of them arrive per second, at random", rich_help_panel=_PANEL),
]
_Expand = Annotated[
    Expansion | None,
    typer.Option("--expand", help="make requests of a usage export's sums, spread over each row's time", rich_help_panel=_PANEL),
]
_Characters = Annotated[
    float | None,
    typer.Option(
        "--chars-per-token", metavar="X", help="count the tokens of prompts that are only there as text", rich_help_panel=_PANEL
    ),
]
_Images = Annotated[
    int | None,
    typer.Option(
        "--image-tokens",
        metavar="N",
        help="add N tokens to a prompt for each of its images, where it does not count them",
        rich_help_panel=_PANEL,
    ),
]
_Prompts = Annotated[
    Prompts,
    typer.Option("--prompts", help="what the prompts of later turns count: all, or what the turn adds", rich_help_panel=_PANEL),
]
_Dropped = Annotated[
    str | None,
    typer.Option(
        "--max-dropped",
        metavar="SHARE",
        help="fail when more rows than that are no requests",
        show_default="1%",
        rich_help_panel=_PANEL,
    ),
]
_Outliers = Annotated[
    bool,
    typer.Option(
        "--drop-outliers",
        help="leave out the few requests beyond a silence that fills most of the window",
        rich_help_panel=_PANEL,
    ),
]
_Gaps = Annotated[bool, typer.Option("--keep-gaps", help="play such a silence", rich_help_panel=_PANEL)]
_Ends = Annotated[
    bool,
    typer.Option("--end-to-end", help="lay dated files one after the other, whatever their dates", rich_help_panel=_PANEL),
]
_History = Annotated[
    list[Path] | None,
    typer.Option(
        "--history",
        metavar="FILE",
        help="requests that came before, which forecasters know from the start",
        rich_help_panel=_PANEL,
    ),
]
_WarmUp = Annotated[
    str | None,
    typer.Option(
        "--warm-up",
        metavar="TIME",
        help="a first part that is played and not judged: short for --set workload.warm_up=6h",
        rich_help_panel=_PANEL,
    ),
]
_BLOCK: Final[dict[str, tuple[Any, object]]] = {
    "files": (_Files, None),
    "history": (_History, None),
    "columns": (_Columns, None),
    "maps": (_Maps, None),
    "begin": (_From, None),
    "until": (_Until, None),
    "load": (_Load, 1.0),
    "time_scale": (_TimeScale, 1.0),
    "all_at": (_AllAt, None),
    "rate": (_Rate, None),
    "expand": (_Expand, None),
    "chars_per_token": (_Characters, None),
    "image_tokens": (_Images, None),
    "prompts": (_Prompts, "whole"),
    "max_dropped": (_Dropped, None),
    "drop_outliers": (_Outliers, False),
    "keep_gaps": (_Gaps, False),
    "end_to_end": (_Ends, False),
}


def takes_trace(
    *, files: bool = True, ahead: bool = True, plays: bool = False, max_dropped: float = DROPPED_MAX
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a trace in place of its parameter `options`, which gets one `TraceOptions`.

    Args:
        files: with `--trace`; without, the command names the files itself.
        ahead: with `--history`: the command looks ahead from what it knows.
        plays: with `--warm-up`, which becomes one of the command's `overrides`.
        max_dropped: share of rows that may be left out where the user says nothing.
    """
    left_out = {"files", "history"} if not files else set() if ahead else {"history"}
    names = [name for name in _BLOCK if name not in left_out]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command).parameters
        made: list[inspect.Parameter] = []
        for name, parameter in own.items():
            if name == "options":
                made += [
                    inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=_BLOCK[each][1], annotation=_BLOCK[each][0])
                    for each in names
                ]
                if plays:
                    kind = inspect.Parameter.KEYWORD_ONLY
                    made.append(inspect.Parameter("warm_up", kind, default=None, annotation=_WarmUp))
            else:
                made.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @functools.wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 # whatever the command's own options are
            block = {name: given.pop(name) for name in names}
            if plays and (warm_up := given.pop("warm_up")) is not None:
                given["overrides"] = [*(given["overrides"] or ()), f"workload.warm_up={warm_up}"]
            command(**given, options=_options(block, max_dropped))

        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined] # read by inspect.signature, and so by typer
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
        return run

    return decorate


def as_typed(options: TraceOptions) -> list[str]:
    """The options as a user would type them, for a command that goes on from this one."""
    words: list[str] = []
    for name, (annotation, _) in _BLOCK.items():
        value = getattr(options, name)
        if value == DEFAULTS[name]:
            continue
        option = annotation.__metadata__[0]
        flag = next(one for one in (option.default, *option.param_decls) if str(one).startswith("--"))
        given = [] if value is True else value if isinstance(value, tuple) else [value]
        words += (
            [flag]
            if value is True
            else [word for one in given for word in (flag, shlex.quote(f"{one:g}" if isinstance(one, float) else str(one)))]
        )
    return words


def is_file(source: str) -> bool:
    """Whether a source that may be a trace file or a scenario is a file of requests.

    Raises:
        TraceError: it is neither, by its looks a file that is not there.
    """
    from sageserve.base.errors import TraceError

    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        return False
    if not path.exists() and (len(path.parts) > 1 or path.suffix):
        raise TraceError(f"{source} does not exist", hint="give the path of a trace file, or the name of a scenario")
    return path.exists()


def _options(block: dict[str, Any], max_dropped: float) -> TraceOptions:
    """The block as one value.

    Raises:
        TraceError: an option that is not what it should be.
    """
    from sageserve.base.errors import TraceError
    from sageserve.base.units import share

    if block["max_dropped"] is not None:
        try:
            max_dropped = share(block["max_dropped"])
        except ValueError as error:
            raise TraceError(f"--max-dropped: {error}", hint="for example --max-dropped 5%") from None
    lists = {name: tuple(block.pop(name, None) or ()) for name in ("files", "history", "columns", "maps")}
    given: dict[str, Any] = {**lists, **block, "max_dropped": max_dropped}
    return TraceOptions(**given)
