"""What can be read, for people: the table of formats and names as a page of the documentation and as JSON.

docs/reference/traces.md is `formats_page()`, held equal by a test. Reads nothing. Read next: `formats.py`, `fields.py`.
"""

from typing import Final

import msgspec

from sageserve.data.traces.columns.fields import COLUMN_OPTIONS, FIELDS, KNOWN, LENGTH_LIMIT, Field, Format
from sageserve.data.traces.columns.formats import FORMATS, GENERIC, NOT_READ, OWN

EVERY: Final[tuple[Format, ...]] = (*FORMATS, GENERIC, OWN)
"""All formats, in the order in which they are tried; our own is told by its metadata before all of them."""

_HEAD: Final = """# Traces

`sageserve trace inspect FILE` shows what is in a trace; `simulate`, `compare`, `plan` and `forecast` play it with
`--trace FILE`. A file is known by what it holds, never by its name: CSV (any of `,` `;` tab `|`, UTF-8 or UTF-16), JSON
lines, JSON arrays and documents, Parquet and Arrow, plain or compressed with gzip, zstd or bzip2. Every column is used,
kept, or listed once as not used.

    sageserve trace inspect requests.csv.gz
    sageserve simulate quickstart --trace requests.csv.gz --map '*=llama-3.3-70b'
    sageserve simulate quickstart --trace log.jsonl --column prompt=usage.prompt_tokens --column output=usage.completion_tokens

This page is what `sageserve trace formats --markdown` prints.

## Formats

"""
_NAMES: Final = """
## Names of columns

Names are compared by their words, whatever their case: `promptTokens`, `prompt_tokens` and `Prompt Tokens` are one. In
nested records the last part of a dotted name counts when no whole name does. `--column LEFT=NAME` names one column and
leaves the rest of the file's own format in force; NAME may be dotted: into nested JSON, into structs of Parquet, into
cells that hold JSON. Of several names the first that is there counts.

"""
_CURES: Final = (
    ("no times at all", "`--all-at 0`, or `--rate 2` for two requests a second at random (Poisson)"),
    (
        "the trace is a slice that begins late",
        "`--from first`; `--from 6h --until 9h`, or dates, cut out any part, and what lies before is history",
    ),
    (
        "one silence fills most of the window (a row of 1970, two days apart)",
        "`--drop-outliers` leaves out the few beyond it; `--keep-gaps` plays it",
    ),
    (
        "what came before",
        "`--history FILE`: forecasters know its demand from the start; with dates, what lies before the trace, else all of it",
    ),
    (
        "what is not judged",
        "`--warm-up 6h` (`workload.warm_up`): played first; promises, costs and GPU-hours are of requests that come after it",
    ),
    (
        "several files",
        "dated ones are placed by their dates and merged where they overlap; others are laid end to end (`--end-to-end`: all)",
    ),
    (
        "rows that are no requests",
        "counted with their lines; more than 1 % fail the command: `--max-dropped 5%`; failures of the source do not count",
    ),
)
_RULES: Final = """
## Times

A number is a date when it lies between 2000 and 2100 as seconds, milliseconds, microseconds or nanoseconds since 1970;
the unit in a column's name (`arrival_ms`, `startTimeUnixNano`) or of the format comes first. Other numbers count from the
start of the trace, in seconds unless the format or the name says otherwise. Dates may be written as Python, Postgres,
BigQuery, Polars, Excel, JavaScript, web servers and e-mail write them; without a zone they count as UTC. `11/16/2023` and
`16/11/2023` are told apart by the column; where it does not show which is meant, name it: `--column timestamp_mdy=NAME`,
`timestamp_dmy=NAME`. `--column excel_days=NAME` reads days as spreadsheets count them.

TABLE
## What a request may carry

* **Cached tokens** are part of the prompt, and the engine model uses them. Where cache reads and writes are counted
  beside `input_tokens`, as Anthropic does, they are added to the prompt, and the reads are its cached tokens.
* **Block hashes** are kept: in a simulation each instance has a bounded cache of blocks, and what a request finds depends on
  where it goes ([rules](kernel.md#block-hashes)). Where no instance is chosen (demand, `trace inspect`) they count as the cached
  tokens that a cache without bounds would find; what is written as cached tokens wins there. Requests without hashes find what
  is written. Hashes of any width, numbers or texts, are kept in our Parquet. The tokens per block are the file's, else
  the format's, else the power of two that fits the number of hashes.
* **Sessions, turns and pauses** make [conversations](#conversations).
* **Images** are kept and counted. Where prompts do not count their tokens, `--image-tokens 576` adds so many for each: 576 is
  LLaVA-1.5's image, other models have from 64 to some thousands, by its size. What their encoder takes is not modelled.
* **Adapters** are played where a model has [slots for them](../how-to/adapters.md): `models.NAME.adapters`.
* **Tenants, users, keys and audio** are kept and counted. Of API keys only a short hash is kept.

## Conversations

A session with several requests is a conversation. Its turns go by their numbers, else by their order in the file. A turn
that has a pause (`delay`) instead of a time is placed as early as it can be: at the arrival before, plus the pause. That is
what an open loop plays. A simulation closes the loop: a turn with a pause arrives when the answer before it has come back,
plus the pause, and finds on the instance that served it what was said so far ([exactly](kernel.md#conversations)). Turns
without a pause keep their times. `--set workload.loop=open` keeps all times.

`trace inspect` counts conversations, their turns and pauses. A prompt is taken to hold the conversation so far; where a file
counts only what each turn adds (sessions in Mooncake's form often do: aiperf sends the history with them), say
`--prompts added`. `workload.generate.conversations` draws them without a file:

    sageserve simulate quickstart --set 'workload.generate.conversations.turns=[[0.4, 1], [1, 12]]'

draws 40 % single requests and up to 12 turns; `think` has the pauses, `added` the tokens that later turns add.

## Usage exports

A row that sums up the requests of a minute, an hour or a day is no request. `--expand poisson` makes requests of it:
spread at random over the row's time, all of the row's mean lengths; `--expand even` spreads them at equal distances. Sums
stay exact. Lengths that are all alike and arrivals without bursts make queues look shorter than they were.

## Text instead of counts

How many tokens a text has depends on the model's tokenizer. `--chars-per-token 4` counts one for every four characters;
an answer is taken to be as long as the payload allows (NAMES).

## Not read

"""


def formats_page() -> str:
    """The page of the documentation."""
    parts = [_HEAD]
    parts += [f"### {each.name}\n\n{_sentence(each.about)} Source: {each.source}.\n\n    {each.example}\n\n" for each in EVERY]
    parts.append(_NAMES + "| field | `--column` | names, the best first |\n|---|---|---|\n")
    parts += [_row(part) for part in FIELDS]
    limits = ", ".join(f"`{_written(name)}`" for name in LENGTH_LIMIT)
    cures = "| what is missing or odd | what to do |\n|---|---|\n" + "".join(f"| {what} | {cure} |\n" for what, cure in _CURES)
    parts.append(_RULES.replace("NAMES", limits).replace("TABLE\n", f"{cures}\n"))
    parts += [f"* {what}: {cure}.\n" for what, cure in NOT_READ]
    return "".join(parts)


def formats_json() -> bytes:
    """The same facts for machines."""
    return msgspec.json.encode(
        {
            "formats": [
                {"name": each.name, "about": each.about, "example": each.example, "source": each.source} for each in EVERY
            ],
            "fields": {
                part: {"about": KNOWN[part].about, "options": options_of(part), "names": [_written(n) for n in KNOWN[part].names]}
                for part in FIELDS
            },
            "not_read": [{"what": what, "instead": cure} for what, cure in NOT_READ],
        }
    )


def options_of(part: Field) -> list[str]:
    """Left sides of `--column` that name a field."""
    return [option for option, (named, _) in COLUMN_OPTIONS.items() if named == part]


def _row(part: Field) -> str:
    options = ", ".join(f"`{option}`" for option in options_of(part))
    names = ", ".join(f"`{_written(name)}`" for name in KNOWN[part].names)
    return f"| {KNOWN[part].about} | {options} | {names} |\n"


def _written(name: str) -> str:
    return name.replace(" ", "_")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
