"""Trace formats: which columns mean what, recognised by the columns a file has and never by its name.

Knows the published formats as a table. Reads no file (`sources.py`) and converts no value (`columns.py`).
Adding a format is adding a row to `FORMATS`. Read next: `sources.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from sageserve.base.errors import TraceError

Field: TypeAlias = Literal["time", "prompt", "output", "model", "tier", "region", "deadline", "cached"]
Clock: TypeAlias = Literal["us", "ms", "s", "auto"]
"""How a time is written: a number in that unit, or `auto` (a number of seconds, or an ISO 8601 instant)."""

FIELDS: Final[tuple[Field, ...]] = get_args(Field)
NEEDED: Final[tuple[Field, ...]] = ("time", "prompt", "output")
NAMED: Final[tuple[Field, ...]] = ("model", "tier", "region")

COLUMN_OPTIONS: Final[Mapping[str, tuple[Field, Clock]]] = {
    "arrival_ms": ("time", "ms"),
    "arrival_s": ("time", "s"),
    "arrival_us": ("time", "us"),
    "timestamp": ("time", "auto"),
    "prompt_tokens": ("prompt", "auto"),
    "output_tokens": ("output", "auto"),
    "model": ("model", "auto"),
    "tier": ("tier", "auto"),
    "region": ("region", "auto"),
    "deadline_s": ("deadline", "s"),
    "cached_tokens": ("cached", "auto"),
}
"""Left sides of `--column LEFT=NAME`, and at the same time the column names of the generic format."""

CACHED_NAMES: Final = ("cached_tokens", "cached_prompt_tokens", "prompt_tokens_cached", "num_cached_tokens")
"""Names under which any format may say how many tokens of a prompt were in the prefix cache; the first that is there counts."""

_REGIONS_OF_RESEARCH_CODE: Final = {"0": "westus", "1": "centralus", "2": "eastus"}


def first_region(text: str) -> str:
    """Origin of a request in the SageServe research format: digits by preference, leading zeros lost.

    `210` is eastus before centralus before westus; `21` is `021` after a spreadsheet read it as a number.
    """
    return _REGIONS_OF_RESEARCH_CODE.get(text.strip().zfill(3)[:1], text)


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a trace.

    Args:
        name: short name, shown in reports.
        about: the columns as people know them, shown when a file is not recognised.
        columns: field -> column name (compared without case and surrounding blanks).
        clock: how the time is written.
        signs: further columns that must be there; they tell apart formats that share the columns.
        failures: rows with no output are failed requests of the source, not broken rows.
        renames: how raw names are read, where they are coded.
        notes: what someone who reads this format should know.
    """

    name: str
    about: str
    columns: Mapping[Field, str]
    clock: Clock = "auto"
    signs: tuple[str, ...] = ()
    failures: bool = False
    renames: Mapping[Field, Callable[[str], str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


FORMATS: Final[tuple[Format, ...]] = (
    Format(
        name="azure",  # Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and 2024.md
        about="Azure LLM inference 2023 and 2024: TIMESTAMP,ContextTokens,GeneratedTokens",
        columns={"time": "timestamp", "prompt": "contexttokens", "output": "generatedtokens"},
    ),
    Format(
        name="burstgpt",  # HPMLL/BurstGPT: seconds; response tokens are 0 for failed requests
        about="BurstGPT: Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        columns={
            "time": "timestamp",
            "model": "model",
            "prompt": "request tokens",
            "output": "response tokens",
        },
        clock="s",
        failures=True,
    ),
    Format(
        name="sageserve-research",  # as the research simulator's generate_random_trace.py writes it
        about="SageServe research code (15 columns): request_id,…,regions,model_type,workload_type,…,"
        "arrival_timestamp,batch_size,prompt_size,token_size",
        columns={
            "time": "arrival_timestamp",
            "prompt": "prompt_size",
            "output": "token_size",
            "model": "model_type",
            "tier": "workload_type",
            "region": "regions",
        },
        clock="s",
        renames={"region": first_region},
        notes=("the first region of each request's preference list is its origin; its sla column is not used",),
    ),
    Format(
        name="servegen",  # alibaba/ServeGen, servegen.utils.save_requests_to_csv
        about="ServeGen CSV: request_id,timestamp,input_tokens,output_tokens (and model, tier, region)",
        columns={
            "time": "timestamp",
            "prompt": "input_tokens",
            "output": "output_tokens",
            "model": "model",
            "tier": "tier",
            "region": "region",
        },
    ),
    Format(
        name="bailian",  # alibaba-edu/qwen-bailian-usagetraces-anon: like Mooncake, but in seconds
        about='Bailian JSONL: {"chat_id", "turn", "timestamp" in s, "input_length", "output_length", …}',
        columns={"time": "timestamp", "prompt": "input_length", "output": "output_length"},
        clock="s",
        signs=("chat_id", "turn"),
    ),
    Format(
        name="mooncake",  # kvcache-ai/Mooncake: milliseconds
        about='Mooncake JSONL: {"timestamp" in ms, "input_length", "output_length", "hash_ids"}',
        columns={"time": "timestamp", "prompt": "input_length", "output": "output_length"},
        clock="ms",
    ),
)

OWN: Final = Format(
    name="sageserve",
    about="SageServe Parquet, as `sageserve trace convert` writes it",
    columns={
        "time": "arrival_us",
        "prompt": "prompt_tokens",
        "output": "output_tokens",
        "model": "model",
        "tier": "tier",
        "region": "region",
        "deadline": "deadline_us",
        "cached": "cached_tokens",
    },
    clock="us",
)

GENERIC_ABOUT: Final = (
    "any CSV, JSONL or Parquet with arrival_ms|arrival_s|timestamp, prompt_tokens, output_tokens "
    "and, if known, model, tier, region, deadline_s (seconds after arrival), cached_tokens (of the prompt)"
)


def formats_hint() -> str:
    """The formats that can be read and the way out for any other, for the hint of an error."""
    lines = [OWN.about, *(each.about for each in FORMATS), GENERIC_ABOUT]
    known = "\n".join(f"  {line}" for line in lines)
    return (
        f"these can be read, plain or compressed with gzip or zstd:\n{known}\n"
        "name the columns yourself with --column, for example --column prompt_tokens=ContextTokens"
    )


def parse_columns(options: Sequence[str]) -> Mapping[str, str]:
    """`--column` options as a mapping from our column names to the file's.

    Raises:
        TraceError: no "=", or a left side that is not one of ours.
    """
    parsed: dict[str, str] = {}
    for option in options:
        ours, separator, theirs = option.partition("=")
        if not separator or ours.strip() not in COLUMN_OPTIONS or not theirs.strip():
            raise TraceError(
                f"--column {option}: write OURS=THEIRS, with OURS one of {', '.join(COLUMN_OPTIONS)}",
                hint="for example --column prompt_tokens=ContextTokens",
            )
        parsed[ours.strip()] = theirs.strip()
    return parsed


@dataclass(frozen=True, slots=True)
class FileColumns:
    """What a file's columns mean: a format matched to the names the file really has."""

    format: Format
    columns: Mapping[Field, str]
    clock: Clock


def match_layout(names: Sequence[str], explicit: Mapping[str, str]) -> FileColumns | None:
    """The layout of a file with these columns; None when they fit no format.

    Args:
        names: column names as they stand in the file.
        explicit: our column names -> the file's, from `parse_columns`; they win over every format.

    Raises:
        TraceError: an explicit column is not in the file.
    """
    real = {name.strip().lower().removeprefix("\ufeff"): name for name in names}
    chosen: dict[Field, str] = {}
    clock: Clock | None = None
    for ours, theirs in explicit.items():
        if theirs.lower() not in real:
            raise TraceError(
                f"--column {ours}={theirs}: the file has no column {theirs!r}",
                hint=f"its columns are {', '.join(name.strip() for name in names)}",
            )
        wanted, unit = COLUMN_OPTIONS[ours]
        chosen[wanted] = real[theirs.lower()]
        if wanted == "time":
            clock = unit
    cached = next((real[name] for name in CACHED_NAMES if name in real), None)
    found: dict[Field, str] = {} if cached is None else {"cached": cached}
    for known in (*FORMATS, _generic(real)):
        columns = found | {part: real[name] for part, name in known.columns.items() if name in real} | chosen
        if all(part in columns for part in NEEDED) and all(sign in real for sign in known.signs):
            return FileColumns(known, columns, clock or known.clock)
    return None


def _generic(real: Mapping[str, str]) -> Format:
    """The generic format as this file writes it: the first time column that is there decides the clock."""
    columns: dict[Field, str] = {}
    clock: Clock = "auto"
    for name, (part, unit) in COLUMN_OPTIONS.items():
        if name in real and part not in columns:
            columns[part] = name
            clock = unit if part == "time" else clock
    return Format(name="generic", about=GENERIC_ABOUT, columns=columns, clock=clock)
