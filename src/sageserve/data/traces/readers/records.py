"""JSON records that hold several requests, or wrap them: each becomes one record per request.

Knows benchmark results, sessions, pages of API answers, OTLP batches and Prometheus answers by what they hold; any other
object is a request itself. Read next: `json_file.py`, `data/traces/columns/tools.py` for what the names in them mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sageserve.base.errors import TraceError
from sageserve.data.traces.readers.cells import DEPTH_MAX, Json

Record = Mapping[str, Json]

PLAIN: Final = frozenset({"input_lens", "turns", "resourceSpans", "resource_spans", "data", "results", "observations", "spans"})
"""An object without any of these keys is one request."""

_BENCH_LISTS: Final = ("input_lens", "output_lens", "start_times", "errors", "cached_tokens")
_WRAPPERS: Final = ("data", "observations", "spans")  # lists of records in API answers and exports
_COUNTERS: Final = {
    "request_success_total": "requests",
    "num_requests_total": "requests",
    "prompt_tokens_total": "prompt_tokens",
    "generation_tokens_total": "generation_tokens",
}


def records_in(value: Json, depth: int = DEPTH_MAX) -> Iterator[Record]:
    """The requests of a JSON value, as records; nothing where it holds no object.

    Raises:
        TraceError: a Prometheus answer without an engine's counters.
    """
    if isinstance(value, list):
        for each in value if depth else ():
            yield from records_in(each, depth - 1)
    elif isinstance(value, dict):
        yield from _of_object(value, depth)


def _of_object(record: dict[str, Json], depth: int) -> Iterator[Record]:
    turns = _objects(record.get("turns"))
    spans = record.get("resourceSpans", record.get("resource_spans"))
    data = record.get("data")
    if isinstance(record.get("input_lens"), list) and isinstance(record.get("output_lens"), list):
        yield from _benchmark(record)
    elif any("llm_calls" in turn for turn in turns):
        yield from _calls(record, turns)
    elif turns:
        rest = {name: value for name, value in record.items() if name != "turns"}
        yield from ({**rest, **turn, "turn": number} for number, turn in enumerate(turns, start=1))
    elif isinstance(spans, list):
        yield from _spans(spans)
    elif isinstance(data, dict) and "resultType" in data:
        yield from _increases(_objects(data.get("result")))
    elif isinstance(record.get("results"), list) and "start_time" in record:
        rest = {name: value for name, value in record.items() if name not in {"results", "object"}}
        yield from ({**rest, **each} for each in _objects(record["results"]))
    else:
        inside = next((record[name] for name in _WRAPPERS if _objects(record.get(name)) and "usage" not in record), None)
        if inside is None or not depth:
            yield record
        else:
            yield from records_in(inside, depth - 1)


def _objects(value: Json) -> list[dict[str, Json]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _benchmark(record: Record) -> Iterator[Record]:
    """The requests of a benchmark's result: lists of equal length, and what holds for all of them."""
    lists = {name: value for name in _BENCH_LISTS if isinstance(value := record.get(name), list)}
    rest = {name: value for name, value in record.items() if not isinstance(value, list)}
    count = max(len(values) for values in lists.values())
    for row in range(count):
        yield {**rest, **{name: values[row] if row < len(values) else None for name, values in lists.items()}}


def _calls(record: Record, turns: Sequence[Record]) -> Iterator[Record]:
    """The calls of a session's turns."""
    rest = {name: value for name, value in record.items() if name != "turns"}
    for number, turn in enumerate(turns, start=1):
        for call in _objects(turn.get("llm_calls")):
            yield {**rest, **call, "turn": number}


def _spans(resources: Sequence[Json]) -> Iterator[Record]:
    """The spans of an OTLP batch, their attributes as an object."""
    for resource in _objects(list(resources)):
        scopes = resource.get("scopeSpans", resource.get("scope_spans"))
        for scope in _objects(scopes):
            for span in _objects(scope.get("spans")):
                yield {**span, "attributes": _attributes(span.get("attributes"))}


def _attributes(pairs: Json) -> Json:
    if not isinstance(pairs, list):
        return pairs
    found: dict[str, Json] = {}
    for pair in _objects(pairs):
        value = pair.get("value")
        if isinstance(value, dict) and value:
            value = next(iter(value.values()))
        found[str(pair.get("key"))] = value
    return found


def _increases(series: Sequence[Record]) -> Iterator[Record]:
    """What an engine's counters grew by between samples, by model.

    Raises:
        TraceError: there are no such counters.
    """
    models: dict[str, dict[str, dict[tuple[float, float], float]]] = {}
    seen = []
    for one in series:
        labels = one.get("metric")
        labels = labels if isinstance(labels, dict) else {}
        name = str(labels.get("__name__", ""))
        seen.append(name or "(no name)")
        counter = _COUNTERS.get(name.rpartition(":")[2])
        if counter is not None:
            of_model = models.setdefault(str(labels.get("model_name", labels.get("model", ""))), {})
            _add_up(one.get("values"), of_model.setdefault(counter, {}))
    if not any(len(counters) == len(set(_COUNTERS.values())) for counters in models.values()):
        raise TraceError(
            f"is a Prometheus range answer of {len(series)} series ({', '.join(dict.fromkeys(seen[:5]))}): samples, not requests",
            hint="ask Prometheus for the counters of requests, prompt and generation tokens together, such as "
            '{__name__=~"vllm:(request_success|prompt_tokens|generation_tokens)_total"}, and give --expand',
        )
    for model, counters in models.items():
        for start, end in sorted({span for grown in counters.values() for span in grown}):
            row: dict[str, Json] = {"start": start, "end": end, **({"model_name": model} if model else {})}
            row.update({name: round(counters.get(name, {}).get((start, end), 0.0)) for name in sorted(set(_COUNTERS.values()))})
            yield row


def _add_up(samples: Json, grown: dict[tuple[float, float], float]) -> None:
    """Add what one counter grew by to the sums; a fall is a restart, which counts from 0."""
    before: tuple[float, float] | None = None
    for sample in samples if isinstance(samples, list) else []:
        if not (isinstance(sample, list) and len(sample) == 2 and isinstance(sample[0], int | float)):
            continue
        try:
            now = float(sample[0]), float(str(sample[1]))
        except ValueError:
            continue
        if before is not None:
            step = now[1] - before[1] if now[1] >= before[1] else now[1]
            span = before[0], now[0]
            grown[span] = grown.get(span, 0.0) + step
        before = now
