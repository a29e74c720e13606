"""`sageserve profile`: which engine profiles there are, what one means, several side by side, and ones that meet measured points.

Knows how profiles are drawn on a terminal; must not decide what they are worth. stdout is the result. Read next:
`data/profiles/library.py` for names, `data/profiles/speed.py` for what the numbers mean.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sageserve.cli import complete
from sageserve.cli.columns import StackedTable, terminal
from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.base.config import ProfileSettings
    from sageserve.data.profiles.library import ListedProfile
    from sageserve.data.profiles.speed import Speed
    from sageserve.sim.points.fit import ScaledProfile

NONE = "–"
_COLUMNS = 6  # GPU types beside the longest name of a model
_EXAMPLES = """[bold]Examples[/bold]

sageserve profile list --model llama-3.1-70b

sageserve profile show qwen3-32b/h200/tp2

sageserve profile show ./mine.yaml#chat

sageserve profile compare llama-3.1-70b/h100-80gb/tp4 llama-3.1-70b/h200/tp2 --gpu-hour 3

sageserve profile fit --points points.csv --out mine.yaml
"""

app = typer.Typer(
    help="Look at engine profiles: how fast a model is on a GPU, and how far to trust it.",
    no_args_is_help=True,
    epilog=_EXAMPLES,
    rich_markup_mode="rich",
)

Name = Annotated[str, complete.PROFILE]
GpuHour = Annotated[
    float | None, typer.Option("--gpu-hour", metavar="USD", min=0, help="price of one GPU, for dollars per token")
]
Speculative = Annotated[
    str | None,
    typer.Option("--speculative", metavar="SETTINGS", help='drafts: "{tokens: 3, acceptance: 0.7, draft: 0.05}"'),
]
Adapters = Annotated[
    str | None, typer.Option("--adapters", metavar="SETTINGS", help='slots for LoRA adapters: "{slots: 8, rank: 16}"')
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def _print(*things: "StackedTable | str") -> None:
    console = terminal()
    for thing in things:
        console.print(thing)


def number(value: float) -> str:
    """Three digits: 0.946, 25.7, 1,532."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


# ---------------------------------------------------------------------------------------------------- list


@app.command("list")
def list_profiles(
    model: Annotated[str | None, typer.Option(metavar="NAME", help="only of this model")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="only on this GPU")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the profiles that scenarios can name, measured and derived."""
    from sageserve.data.profiles.library import library

    found = list(library(model, gpu))
    if as_json:
        typer.echo(answer_json([_plain(one) for one in found]))
    elif model is None and gpu is None:
        for gpus in _shelves(found):
            _print(_matrix([one for one in found if one.gpu in gpus], gpus), "")
        _print("The fewest GPUs a model fits on, more where it says +; * has measured ones; – does not fit on 8.")
        _print("next: sageserve profile list --model llama-3.1-70b")
    else:
        _print(_rows(found))


def _plain(one: "ListedProfile") -> dict[str, object]:
    settings = one.profile.model_dump(mode="json", exclude_none=True)
    return {"name": one.name, "model": one.model, "origin": one.origin, "profile": settings}


def _shelves(found: "list[ListedProfile]") -> list[list[str]]:
    """GPU types, so many at a time that a table of them fits a narrow terminal."""
    gpus = list(dict.fromkeys(one.gpu for one in found))
    return [gpus[at : at + _COLUMNS] for at in range(0, len(gpus), _COLUMNS)]


def _matrix(found: "list[ListedProfile]", gpus: list[str]) -> StackedTable:
    table = StackedTable("model", *gpus)
    for model in dict.fromkeys(one.model for one in found):
        here = {gpu: [one for one in found if (one.model, one.gpu) == (model, gpu)] for gpu in gpus}
        table.add_row(escape(model), *(_cell(ones) for ones in here.values()))
    return table


def _cell(ones: "list[ListedProfile]") -> str:
    if not ones:
        return NONE
    measured = "*" if any(one.origin == "measured" for one in ones) else ""
    return f"{ones[0].tp}{'+' if len(ones) > 1 else ''}{measured}"


def _rows(found: "list[ListedProfile]") -> StackedTable:
    from sageserve.data.profiles.speed import PROMPT, tpot_ms, ttft_ms

    table = StackedTable("profile", "TTFT 1k", "TPOT at 1", "TPOT at 64", "KV tokens", "origin", "error")
    for one in found:
        times = (ttft_ms(one.profile, PROMPT), tpot_ms(one.profile, 1), tpot_ms(one.profile, 64))
        cells = [f"{number(time)} ms" for time in times]
        error = one.profile.error.split("(")[0].split(",")[0].strip() if one.origin == "derived" else "see show"
        table.add_row(escape(one.name), *cells, f"{one.profile.kv_tokens:,}", one.origin, escape(error))
    return table


# ---------------------------------------------------------------------------------------------------- show


@app.command()
def show(
    name: Name,
    gpu_hour: GpuHour = None,
    speculative: Speculative = None,
    adapters: Adapters = None,
    as_json: AsJson = False,
) -> None:
    """Print one profile: coefficients, where they come from, and what they mean."""
    from sageserve.data.profiles.library import NOT_MODELLED, adapting, profile_named, speculating
    from sageserve.data.profiles.speed import speed

    one = profile_named(name)
    if speculative is not None:
        one = speculating(one, speculative)
    if adapters is not None:
        one = adapting(one, adapters)
    means = speed(one.profile, gpu_hour=gpu_hour)
    if as_json:
        typer.echo(answer_json({**_plain(one), "not_modelled": NOT_MODELLED, "speed": _speed_plain(means)}))
        return
    profile = one.profile
    gpus = f"{profile.gpus} x {profile.gpu}" if profile.gpus > 1 else profile.gpu
    ranks = f", {profile.dp} data parallel ranks" if profile.dp > 1 else ""
    _print(f"[bold]{escape(one.name)}[/bold]: {one.origin}, {escape(gpus)}, tensor parallelism {profile.tp}{ranks}", "")
    _print(_coefficients(profile), "", _trust(profile), "", *_meaning(means))


def _speed_plain(means: "Speed") -> object:
    from msgspec import to_builtins

    return to_builtins(means)


def _coefficients(profile: "ProfileSettings") -> StackedTable:
    from sageserve.show.coefficients import curve_points

    rows = [
        *(
            (f"iteration of {tokens:,}", time, "ms", "tokens" if tokens > 1 else "token")
            for tokens, time in curve_points(profile)
        ),
        ("eager", profile.eager_ms, "ms", "more, if the iteration prefills"),
        ("decode", profile.decode_us_per_sequence, "µs", "per decoding sequence, beside its token"),
        ("kv", profile.kv_ns_per_token, "ns", "per KV token read by decoding sequences"),
        ("attention", profile.attention_ns_per_token2, "ns", "per prompt token and token of context before it"),
        ("first token", profile.first_token_ms, "ms", "once per request, around its first token"),
    ]
    table = StackedTable("coefficient")
    table.add_column("", justify="right")
    table.add_column("", no_wrap=True)
    table.add_column("what it is")
    for label, value, unit, what in rows:
        table.add_row(label, f"{value:.4g}" if value else NONE, unit if value else "", what)
    limits = f"at most {profile.max_sequences} sequences and {profile.max_batched_tokens:,} tokens in an iteration"
    limits += f", each of {profile.dp} ranks" if profile.dp > 1 else ""
    table.add_row("limits", "", "", f"{limits}")
    table.add_row("schedule", "", "", _schedule(profile))
    if (told := profile.speculative) is not None:
        drafts = f"drafts of {told.tokens}, of which {told.acceptance:.0%} are accepted one after the other"
        table.add_row("speculation", f"{told.gain:.3g}", "", f"tokens of a sequence in an iteration: {drafts}")
    if (slots := profile.adapters) is not None:
        table.add_row("adapters", f"{slots.slots}", "", f"slots for LoRA adapters of rank {slots.rank}, {_slot(profile)}")
        table.add_row("of each", f"{slots.adapter_us:.4g}", "µs", "an iteration takes more for each adapter that computes in it")
        table.add_row(
            "of any", f"{slots.any_us:.4g}" if slots.any_us else NONE, "µs" if slots.any_us else "", "more, if any does"
        )
    table.add_row("KV cache", f"{profile.kv_tokens:,}", "", f"tokens{_memory(profile)}")
    return table


def _schedule(profile: "ProfileSettings") -> str:
    """How iterations are filled, in words."""
    prompts = "pieces of prompts" if profile.chunked else "whole prompts"
    text = f"{prompts} {'beside decoding' if profile.is_mixed else 'before decoding, which pauses'}"
    text += "; who came last loses memory that is short" if profile.evicts else "; waits until a whole answer has memory"
    return text + (f"; CUDA graphs up to {profile.graph_sequences} sequences" if profile.graph_sequences else "")


def _slot(profile: "ProfileSettings") -> str:
    """What a slot takes, in words."""
    told = profile.adapters
    assert told is not None
    return f"{(told.size or 0) / 1e6:,.4g} MB on each GPU, loaded in {told.loading / 1e3:.3g} ms while the iteration waits"


def _memory(profile: "ProfileSettings") -> str:
    if profile.weights is None or profile.kv_per_token is None:
        return ""
    return (
        f"; beside {profile.weights / 1e9:.1f} GB of weights, {profile.kv_per_token / 1024:,.4g} KiB per token, all GPUs together"
    )


def _trust(profile: "ProfileSettings") -> StackedTable:
    from sageserve.data.profiles.library import NOT_MODELLED

    table = StackedTable("", "", left=2)
    for label, text in (
        ("engine", profile.engine),
        ("source", profile.source),
        ("fitted on", profile.fitted),
        ("error", profile.error + ("; of engines that do not speculate" if profile.speculative and profile.error else "")),
        ("not in it", ", ".join(NOT_MODELLED)),
    ):
        table.add_row(label, escape(text or "not stated"))
    return table


def _meaning(means: "Speed") -> "list[StackedTable | str]":
    from sageserve.data.profiles.speed import MISSES, OUTPUT, PROMPT, TTFT_PROMISE_S

    table = StackedTable("batch", "TPOT", "tokens/s", left=0)
    for pace in means.paces:
        table.add_row(str(pace.batch), f"{number(pace.tpot_ms)} ms", number(pace.tokens_per_s))
    late = f"{MISSES:.0%} of first tokens later than {TTFT_PROMISE_S:g} s"
    rate = f"{number(means.requests_per_s)} requests/s with {late}" if means.requests_per_s else f"never without {late}"
    lines: list[StackedTable | str] = [
        f"requests of {PROMPT:,} prompt and {OUTPUT} output tokens",
        table,
        f"first token  {number(means.ttft_ms)} ms on an idle instance",
        f"sustains     {rate}; full batches do {number(means.requests_per_s_most)}",
    ]
    if means.usd_per_million is not None:
        lines.append(f"costs        ${means.usd_per_million:.3g} per million tokens at that rate")
    return lines


# ---------------------------------------------------------------------------------------------------- fit


@app.command(epilog=_EXAMPLES)
def fit(
    points: Annotated[
        Path, typer.Option("--points", metavar="FILE", help="a table of means at a concurrency each, of your engines")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="profile file to write")],
    replace: Annotated[bool, typer.Option("--replace", help="replace the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Scale derived profiles to points that you measured, one factor for each model, GPU and engine; one point is enough."""
    from rich.console import Console

    from sageserve.base.errors import MeasurementError
    from sageserve.data.measured.points import read_points
    from sageserve.data.profiles.write import write_profile
    from sageserve.sim.points.fit import fit_points

    table = read_points(points)
    with Console(stderr=True).status("fitting") as status:
        found, why = fit_points(table, lambda done: status.update(f"{done:,} of {len(table):,} points"))
    if found:
        write_profile(out, {one.name: one.profile for one in found}, replace=replace)
    if as_json:
        rows = {one.name: _fit_plain(one) for one in found}
        typer.echo(answer_json({"profiles": rows, "left_out": why}))
    else:
        _print(*_fits(found, why))
    if not found:
        raise MeasurementError(
            f"no point of {points} can be met", hint="the reasons stand above; docs/how-to/validate-and-calibrate.md"
        )
    typer.echo(f"written to {out}; next: sageserve profile show '{out}#{found[0].name}'", err=True)


def _fit_plain(one: "ScaledProfile") -> dict[str, object]:
    errors = {"e2e_mape_before": one.before, "e2e_mape": one.after, "e2e_mape_heldout": one.heldout}
    return {"points": one.points, "factor": one.factor, **errors}


def _fits(found: "list[ScaledProfile]", why: dict[str, str]) -> "list[StackedTable | str]":
    from sageserve.show.validation import percent

    table = StackedTable("profile", "points", "times", "E2E as derived", "met", "held out")
    for one in found:
        heldout = NONE if one.heldout is None else percent(one.heldout)
        table.add_row(escape(one.name), f"{one.points}", f"{one.factor:.3f}", percent(one.before), percent(one.after), heldout)
    return [*([table] if found else []), *(f"[dim]left out: {escape(name)}: {escape(text)}[/dim]" for name, text in why.items())]


# ---------------------------------------------------------------------------------------------------- compare


@app.command(epilog=_EXAMPLES)
def compare(
    names: Annotated[list[str], complete.PROFILES],
    gpu_hour: GpuHour = None,
    as_json: AsJson = False,
) -> None:
    """Print profiles side by side; each ratio is to the first."""
    from sageserve.base.errors import ConfigError
    from sageserve.data.profiles.library import profile_named
    from sageserve.data.profiles.speed import speed

    if not 2 <= len(names) <= 4:
        raise ConfigError(f"{len(names)} profiles to compare", hint="give two to four names, as in the examples of --help")
    found = [profile_named(name) for name in names]
    means = [speed(one.profile, gpu_hour=gpu_hour) for one in found]
    if as_json:
        rows = [{**_plain(one), "speed": _speed_plain(its)} for one, its in zip(found, means, strict=True)]
        typer.echo(answer_json(rows))
    else:
        _print(_side_by_side(found, means))


def _side_by_side(found: "list[ListedProfile]", means: "list[Speed]") -> StackedTable:
    table = StackedTable("", *(escape(one.name.replace("/", " ")) for one in found))
    for label, values in _metrics(found, means):
        first = values[0]
        cells = [number(first) if first is not None else NONE]
        for value in values[1:]:
            ratio = f" ({value / first:.2f}x)" if first and value is not None else ""
            cells.append(NONE if value is None else number(value) + ratio)
        table.add_row(label, *cells)
    for label, texts in (("origin", [one.origin for one in found]), ("error", [one.profile.error for one in found])):
        table.add_row(label, *(escape(text.split("(")[0].strip() or "not stated") for text in texts))
    return table


def _metrics(found: "list[ListedProfile]", means: "list[Speed]") -> "list[tuple[str, list[float | None]]]":
    from sageserve.data.profiles.speed import tpot_ms

    profiles = [one.profile for one in found]
    rows: list[tuple[str, list[float | None]]] = [
        ("GPUs", [float(one.gpus) for one in profiles]),
        ("TTFT of 1k tokens, ms", [one.ttft_ms for one in means]),
        ("TPOT at batch 1, ms", [tpot_ms(one, 1) for one in profiles]),
        ("TPOT at batch 64, ms", [tpot_ms(one, 64) for one in profiles]),
        ("largest batch of 1.3k", [float(one.paces[-1].batch) for one in means]),
        ("tokens/s at that batch", [one.paces[-1].tokens_per_s for one in means]),
        ("KV tokens", [float(one.kv_tokens) for one in profiles]),
        ("requests/s sustained", [one.requests_per_s or None for one in means]),
        ("per GPU", [one.requests_per_s / profile.gpus or None for one, profile in zip(means, profiles, strict=True)]),
    ]
    if any(one.usd_per_million is not None for one in means):
        rows.append(("$ per million tokens", [one.usd_per_million for one in means]))
    return rows
