"""What a column of a trace can mean, and the names under which engines, providers and tools write it.

Names are compared by their words: `promptTokens`, `prompt_tokens` and `Prompt Tokens` are one. Knows no file.
Read next: `formats.py` for formats with names of their own, `layout.py` for how a file's columns are matched.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from sageserve.base.errors import TraceError

Field: TypeAlias = Literal[
    "time",
    "prompt",
    "output",
    "model",
    "tier",
    "region",
    "deadline",
    "cached",
    "cache_read",
    "cache_write",
    "session",
    "turn",
    "delay",
    "request",
    "parent",
    "adapter",
    "tenant",
    "user",
    "key",
    "images",
    "audio",
    "blocks",
    "block",
    "count",
    "end",
    "failed",
    "kind",
    "text",
    "rate",
]
Clock: TypeAlias = Literal["us", "ms", "s", "ns", "days", "auto", "mdy", "dmy"]
"""How a time is written: a number in that unit, days as Excel counts them, dates of that order, or `auto`: whatever it is."""

FIELDS: Final[tuple[Field, ...]] = get_args(Field)
NAMED: Final[tuple[Field, ...]] = ("model", "tier", "region")

_UNITS: Final[Mapping[str, Clock]] = {
    **dict.fromkeys(("us", "micros", "microseconds"), "us"),
    **dict.fromkeys(("ms", "millis", "milliseconds", "msec"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "seconds"), "s"),
    **dict.fromkeys(("ns", "nano", "nanos", "nanoseconds"), "ns"),
}
_TIMES: Final[tuple[Field, ...]] = ("time", "end", "delay", "deadline")  # their names may end in a unit
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[A-Z]")


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """What a field is.

    Args:
        about: for the docs, in a few words.
        names: what files call it, the best first, as words joined by blanks; units at the end of times are left out.
        options: left sides of `--column LEFT=NAME`, and how a time or duration named so is written.
    """

    about: str
    names: tuple[str, ...]
    options: Mapping[str, Clock]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write requests.

    Args:
        name: short name, shown in reports.
        about: whose it is and what it holds.
        example: one line of it.
        source: where its schema comes from: the data set, or a published package and its version.
        columns: field -> names in order of preference, compared by their words; a point leads into nested records. What a
            format does not name is found by the names every format may use.
        clock: how its times are written.
        pause: unit of its pauses between turns.
        signs: further names that must be there; they tell apart formats that share the rest.
        failures: rows without output are failed requests of the source, not broken rows.
        mixed: records that say neither prompt nor output are of another kind (spans, tool calls), not broken requests.
        first: its clock has no zero of its own: time starts at the first request.
        timeless: it may hold no times at all.
        block: tokens per block of its prompt hashes.
        renames: how raw names are read, where they are coded.
        notes: what someone who reads this format should know.
    """

    name: str
    about: str
    example: str
    source: str
    columns: Mapping[Field, tuple[str, ...]]
    clock: Clock = "auto"
    pause: Clock = "ms"
    signs: tuple[str, ...] = ()
    failures: bool = False
    mixed: bool = False
    first: bool = False
    timeless: bool = False
    block: int | None = None
    renames: Mapping[Field, Callable[[str], str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


_UNITS_OF_TIMES: Final[Mapping[str, Clock]] = {
    "timestamp": "auto",
    "time": "auto",
    "arrival_s": "s",
    "arrival_ms": "ms",
    "arrival_us": "us",
    "arrival_ns": "ns",
    "timestamp_mdy": "mdy",
    "timestamp_dmy": "dmy",
    "excel_days": "days",
}

KNOWN: Final[Mapping[Field, FieldInfo]] = {
    "time": FieldInfo(
        "when a request arrives",
        _names(
            "arrival, arrival time, arrival timestamp, arrived at, arrived, request received, received at, request start, "
            "request start time, request time, request timestamp, requested at, submit time, submitted at, sent at, start time, "
            "started at, start, start timestamp, created at, created, creation time, create time, timestamp, ts, time, datetime, "
            "date time, event time, event timestamp, log time, time local, date, t"
        ),
        _UNITS_OF_TIMES,
    ),
    "prompt": FieldInfo(
        "tokens of the prompt",
        _names(
            "prompt tokens, input tokens, context tokens, request tokens, num prompt tokens, num input tokens, n prompt tokens, "
            "n input tokens, prompt token count, input token count, prompt length, input length, prompt len, input len, "
            "num prefill tokens, prefill tokens, prompt size, input size, input sequence length, isl, input usage, tokens in, "
            "in tokens, tokens prompt, tokens input, usage prompt tokens, usage input tokens, prompt eval count, "
            "total prompt tokens, total input tokens, uncached input tokens, prompt, input"
        ),
        {"prompt_tokens": "auto", "prompt": "auto"},
    ),
    "output": FieldInfo(
        "tokens of the answer",
        _names(
            "output tokens, completion tokens, generated tokens, response tokens, generation tokens, num output tokens, "
            "num completion tokens, num generated tokens, num generation tokens, n output tokens, n completion tokens, "
            "n generated tokens, completion token count, output token count, output length, response length, completion length, "
            "generation length, output len, num decode tokens, decode tokens, token size, output size, output sequence length, "
            "osl, output usage, tokens out, out tokens, tokens completion, tokens output, usage completion tokens, "
            "usage output tokens, eval count, total completion tokens, total output tokens, completion, output"
        ),
        {"output_tokens": "auto", "output": "auto"},
    ),
    "model": FieldInfo(
        "model that was asked",
        _names(
            "model, model name, model id, request model, requested model, model group, model type, served model, "
            "served model name, response model, deployment, deployment name, llm"
        ),
        {"model": "auto"},
    ),
    "tier": FieldInfo("tier (service class)", _names("tier, service tier, sla tier, priority tier"), {"tier": "auto"}),
    "region": FieldInfo(
        "region where it enters",
        _names("region, origin, origin region, request region, cloud region, aws region, azure region"),
        {"region": "auto"},
    ),
    "deadline": FieldInfo("deadline, after the arrival", _names("deadline"), {"deadline_s": "s", "deadline_ms": "ms"}),
    "cached": FieldInfo(
        "prompt tokens found in a prefix cache, part of the prompt's",
        _names(
            "cached tokens, cached prompt tokens, prompt tokens cached, num cached tokens, cached input tokens, "
            "input cached tokens, n cached tokens, prompt cached tokens, cache hit tokens, prompt cache hit tokens, "
            "prefix cached tokens, num prefix cached tokens, cached token count, tokens cached, input cached"
        ),
        {"cached_tokens": "auto", "cached": "auto"},
    ),
    "cache_read": FieldInfo(
        "prompt tokens read from a cache, written beside the prompt's",
        _names("cache read input tokens, cache read tokens, cache read input token count"),
        {"cache_read_tokens": "auto"},
    ),
    "cache_write": FieldInfo(
        "prompt tokens written to a cache, written beside the prompt's",
        _names("cache creation input tokens, cache write input tokens, cache creation tokens, cache write tokens"),
        {"cache_write_tokens": "auto"},
    ),
    "session": FieldInfo(
        "conversation it belongs to",
        _names("session, session id, conversation, conversation id, dialog id, thread id, chat session id, session num"),
        {"session": "auto"},
    ),
    "turn": FieldInfo(
        "its place in the conversation",
        _names("turn, turn index, turn id, turn number, turn num, turn idx, round"),
        {"turn": "auto"},
    ),
    "delay": FieldInfo(
        "pause between the answer before and this request",
        _names("delay, think time, inter turn delay, turn delay"),
        {"delay_ms": "ms", "delay_s": "s"},
    ),
    "request": FieldInfo("its own id, where others name it as their parent", _names("chat id, request id, id"), {}),
    "parent": FieldInfo("id of the turn before", _names("parent chat id, parent request id, previous response id"), {}),
    "adapter": FieldInfo(
        "LoRA adapter",
        _names("adapter, adapter name, adapter id, lora, lora name, lora id, lora adapter, lora module"),
        {"adapter": "auto"},
    ),
    "tenant": FieldInfo(
        "tenant",
        _names(
            "tenant, tenant id, tenant name, client tenant, organization, organization id, org, org id, team, team id, "
            "project, project id, customer, customer id, account, account id, client, client id"
        ),
        {"tenant": "auto"},
    ),
    "user": FieldInfo("user", _names("user, user id, end user, end user id, user name"), {"user": "auto"}),
    "key": FieldInfo(
        "API key; only a short hash of it is kept",
        _names("api key, api key id, api key hash, api key alias, virtual key, key alias"),
        {"key": "auto"},
    ),
    "images": FieldInfo(
        "images of the prompt", _names("num images, image count, images, n images, images count"), {"images": "auto"}
    ),
    "audio": FieldInfo(
        "audio clips of the prompt",
        _names("num audios, num audio, audio count, audios, n audios, num audio clips"),
        {"audio": "auto"},
    ),
    "blocks": FieldInfo(
        "hashes of the prompt's blocks",
        _names("hash ids, block hashes, block hash ids, block ids, input sequence hashes, prefix hashes"),
        {"block_hashes": "auto", "hash_ids": "auto"},
    ),
    "block": FieldInfo("tokens per block of these hashes", _names("block size, trace block size, hash block size"), {}),
    "count": FieldInfo(
        "requests that a row of a usage export sums up",
        _names(
            "num model requests, num requests, n requests, request count, requests count, requests, model requests, num calls, "
            "n requests total, call count"
        ),
        {"requests": "auto"},
    ),
    "end": FieldInfo("end of the time that such a row covers", _names("end time, end, bucket end, ended at"), {}),
    "failed": FieldInfo(
        "why it failed, if it did", _names("error, errors, status code, status, error message, error code, http status"), {}
    ),
    "kind": FieldInfo("what was asked for; embeddings and the like have no answer", _names("call type, operation name"), {}),
    "text": FieldInfo(
        "the prompt itself, where nobody counted its tokens",
        _names("messages, text input, prompt text, text, prompt, texts, input text"),
        {"prompt_text": "auto"},
    ),
    "rate": FieldInfo("requests per second at which a benchmark sent, where no request has a time", _names("request rate"), {}),
}
LENGTH_LIMIT: Final = _names("max tokens, max completion tokens, max output tokens, max new tokens")
"""What a request allows its answer; stands for the answer's length where a file of payloads has no other."""

COLUMN_OPTIONS: Final[Mapping[str, tuple[Field, Clock]]] = {
    option: (part, clock) for part, info in KNOWN.items() for option, clock in info.options.items()
}
"""Left sides of `--column LEFT=NAME`."""


def words(name: str) -> tuple[str, ...]:
    """The words of a column's name in lower case: `startTimeUnixNano` is start, time, unix, nano."""
    return tuple(word.lower() for word in _WORDS.findall(name))


def key_of(name: str) -> str:
    """What names are compared by: their words, joined."""
    return "".join(words(name))


def clock_of(name: str) -> tuple[str, Clock]:
    """The key of a time's name without its unit, and the unit: `arrival_ms` is arrival in ms, `timestamp` is in anything."""
    parts = [word for word in words(name) if word not in {"unix", "epoch"}]
    if len(parts) > 1 and parts[-1] in _UNITS:
        return "".join(parts[:-1]), _UNITS[parts[-1]]
    return "".join(parts), "auto"


def names_of(part: Field) -> tuple[str, ...]:
    """Keys of the names of a field, the best first."""
    return _KEYS[part]


_KEYS: Final[Mapping[Field, tuple[str, ...]]] = {
    part: tuple(name.replace(" ", "") for name in info.names) for part, info in KNOWN.items()
}
_FIELDS_OF_KEY: Final[Mapping[str, tuple[Field, ...]]] = {
    key: tuple(part for part, keys in _KEYS.items() if key in keys) for every in _KEYS.values() for key in every
}
NUMBERS_ONLY: Final = frozenset({"prompt", "input", "completion", "output"})
"""Keys that are a number of tokens in one file and a text in another."""

LIMIT_KEYS: Final = tuple(name.replace(" ", "") for name in LENGTH_LIMIT)


def rank(part: Field, name: str) -> int | None:
    """How good a name is for a field: 0 is the best; None where it is none of its names."""
    key = clock_of(name)[0] if part in _TIMES else key_of(name)
    keys = _KEYS[part]
    return keys.index(key) if key in keys else None


def may_mean_something(name: str) -> bool:
    """Whether a name, or its last part after a point, is one of any field."""
    for part in (name, name.rpartition(".")[2]):
        keys = {key_of(part), clock_of(part)[0]}
        if any(key in _FIELDS_OF_KEY or key in LIMIT_KEYS for key in keys):
            return True
    return False


def parse_columns(options: Sequence[str]) -> Mapping[str, str]:
    """`--column` options as a mapping from our column names to the file's.

    Raises:
        TraceError: no "=", a left side that is not one of ours, or one field named twice.
    """
    parsed: dict[str, str] = {}
    for option in options:
        ours, separator, theirs = (part.strip() for part in option.partition("="))
        if not separator or ours not in COLUMN_OPTIONS or not theirs:
            raise TraceError(
                f"--column {option}: write OURS=THEIRS, with OURS one of {', '.join(COLUMN_OPTIONS)}",
                hint="for example --column prompt_tokens=ContextTokens, or --column prompt=usage.prompt_tokens in nested JSON",
            )
        twice = next((other for other in parsed if COLUMN_OPTIONS[other][0] == COLUMN_OPTIONS[ours][0]), None)
        if twice is not None:
            raise TraceError(
                f"--column {option}: {twice}={parsed[twice]} says already where that is", hint="leave one of the two out"
            )
        parsed[ours] = theirs
    return parsed
