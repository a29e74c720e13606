"""Played requests as the engines that played them would have shown themselves to Prometheus: counters, gauges, vLLM's buckets.

For tests and benchmarks of everything that reads histories: what was true is known. Completions are counted when they happen,
so the history lags behind arrivals as a real one does. Knows no simulator: it is given when requests came and went.
Read next: `data/history/collect.py`, which reads it back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import SECOND, Micros
from sageserve.data.history.raw import RawSeries

TOKENS: Final = tuple(float(m * 10**e) for e in range(6) for m in (1, 2, 5))
"""Upper bounds of vLLM's buckets of lengths."""

TTFT: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""Upper bounds of vLLM's buckets of times to the first token, in seconds."""


@dataclass(frozen=True, slots=True)
class PodLife:
    """From when to when an instance could be scraped.

    Args:
        instance: its number.
        model: its code.
        begin, end: microseconds from the start of the window.
        labels: of its own.
    """

    instance: int
    model: int
    begin: Micros
    end: Micros
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlayedRequests:
    """When requests came and went, and where.

    Args:
        arrival, first, finish: int64[n], microseconds from the start of the window; those that never finished are UNSET.
        prompt, output: int32[n].
        instance: int32[n], number of the instance; UNSET: none.
        model: uint8[n], codes into `models`.
        models: names.
        labels: more labels of all its instances.
        lives: of instances; none: all that served anything were there all the time.
    """

    arrival: Ints
    first: Ints
    finish: Ints
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    instance: NDArray[np.int32]
    model: NDArray[np.uint8]
    models: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    lives: tuple[PodLife, ...] = ()


def render(played: PlayedRequests, begin: Micros, end: Micros, interval: Micros) -> Iterator[RawSeries]:
    """All series of all instances, sampled at equal steps; each instance is scraped at an instant of its own within a step.

    Args:
        played: the requests.
        begin: microseconds since 1970 of the window's start.
        end: length of the window.
        interval: microseconds between two scrapes.
    """
    for pod, life in enumerate(played.lives or _always(played, end)):
        mine = played.instance == life.instance
        if played.lives:  # an instance is another pod each time it is started
            mine &= (played.first >= life.begin) & (played.first <= life.end)
        place = pod if played.lives else life.instance
        labels = {"model_name": played.models[life.model], "pod": f"engine-{place}", "namespace": "serving"}
        labels |= {**played.labels, **life.labels}
        first = life.instance * 7919 * 1000 % interval
        if life.begin <= 0:
            first -= interval  # it was there before, as engines are when a history is cut out of a longer one
        times = np.arange(first, end, interval)
        times = times[((times >= life.begin) | (life.begin <= 0)) & (times <= life.end)]
        rows = np.flatnonzero(mine)
        yield from _instance(played, rows, labels | {"instance": f"10.0.{place >> 8}.{place & 255}:8000"}, (times, begin))


def _always(played: PlayedRequests, end: Micros) -> list[PodLife]:
    """Every instance that served anything, there all the time."""
    numbers, first = np.unique(played.instance, return_index=True)
    models = played.model[first].tolist()
    return [PodLife(n, model, 0, end) for n, model in zip(numbers.tolist(), models, strict=True) if n >= 0]


def render_front(played: PlayedRequests, priority: Ints, when: tuple[Micros, Micros, Micros]) -> Iterator[RawSeries]:
    """What an endpoint picker in front of all these engines would have shown, by model and priority.

    Args:
        played: the requests.
        priority: int64[n], of each.
        when: (begin, end, interval) as for `render`.
    """
    begin, end, interval = when
    times = np.arange(0, end, interval)
    for code, number in sorted(set(zip(played.model.tolist(), priority.tolist(), strict=True))):
        rows = np.flatnonzero((played.model == code) & (priority == number))
        labels = {"model_name": played.models[code], "priority": str(number), "instance": "10.1.0.1:9090", **played.labels}

        def series(name: str, value: Floats, *, own: Mapping[str, str] = labels, **more: str) -> RawSeries:
            return RawSeries({"__name__": name, **own} | more, times + begin, value)

        yield series("llm_d_epp_request_total", _counted(played.arrival[rows], times))
        done = rows[played.finish[rows] >= 0]
        for name, column in (("input", played.prompt), ("output", played.output)):
            seen = played.finish[done], column[done].astype(np.float64), times
            yield from _histogram(series, f"llm_d_epp_request_{name}_tokens", TOKENS, seen)


def _instance(played: PlayedRequests, rows: Ints, labels: Mapping[str, str], when: tuple[Ints, Micros]) -> Iterator[RawSeries]:
    times, begin = when
    arrival, first, finish = (column[rows] for column in (played.arrival, played.first, played.finish))
    done, begun = finish >= 0, first >= 0
    prompt, output = played.prompt[rows].astype(np.float64), played.output[rows].astype(np.float64)
    came, started, gone = (_counted(column[rows_], times) for column, rows_ in ((arrival, ...), (first, begun), (finish, done)))

    def series(name: str, value: Floats, **more: str) -> RawSeries:
        return RawSeries({"__name__": name, **labels, "engine": "0"} | more, times + begin, value)

    yield series("vllm:num_requests_running", started - gone)
    yield series("vllm:num_requests_waiting", came - started)
    yield series("vllm:request_success_total", gone, finished_reason="stop")
    yield series("vllm:prompt_tokens_total", _counted(first[begun], times, prompt[begun]))
    yield series("vllm:generation_tokens_total", _made(first, finish, output, times))
    for name, value in (("request_prompt_tokens", prompt), ("request_generation_tokens", output)):
        yield from _histogram(series, f"vllm:{name}", TOKENS, (finish[done], value[done], times))
    waited = (first - arrival) / SECOND
    yield from _histogram(series, "vllm:time_to_first_token_seconds", TTFT, (first[begun], waited[begun], times))


def _histogram(series: object, name: str, bounds: Sequence[float], seen: tuple[Ints, Floats, Ints]) -> Iterator[RawSeries]:
    assert callable(series)
    at, value, times = seen
    for bound in bounds:
        yield series(f"{name}_bucket", _counted(at[value <= bound], times), le=f"{bound:g}")
    yield series(f"{name}_bucket", _counted(at, times), le="+Inf")
    yield series(f"{name}_count", _counted(at, times))
    yield series(f"{name}_sum", _counted(at, times, value))


def _counted(at: Ints, times: Ints, weight: Floats | None = None) -> Floats:
    """How much had happened by each time."""
    order = np.argsort(at, kind="stable")
    sums = np.concatenate(([0.0], np.cumsum(np.ones(len(at)) if weight is None else weight[order])))
    return sums[np.searchsorted(at[order], times, side="right")]


def _made(first: Ints, finish: Ints, output: Floats, times: Ints) -> Floats:
    """Tokens generated by each time: the first at once, the others evenly until the last."""
    whole: Bools = (first >= 0) & (finish >= first)
    begin, end, more = first[whole], finish[whole], output[whole] - 1.0
    rate = more / np.maximum(end - begin, 1)
    edges = np.concatenate((begin, end))
    order = np.argsort(edges, kind="stable")
    slope = np.concatenate((rate, -rate))[order]
    at = edges[order]
    value = np.concatenate(([0.0], np.cumsum(np.cumsum(slope)[:-1] * np.diff(at)))) if len(at) else np.zeros(0)
    grown = np.interp(times, at, value) if len(at) else np.zeros(len(times))
    return np.floor(grown + 1e-6) + _counted(begin, times)


def write_openmetrics(path: Path, found: Iterator[RawSeries]) -> int:
    """Write series as OpenMetrics text that `promtool tsdb create-blocks-from openmetrics` takes; how many samples."""
    families: dict[str, list[RawSeries]] = {}
    for one in found:
        families.setdefault(_family(one.name), []).append(one)
    samples = 0
    with path.open("w", encoding="utf-8") as file:
        for family, members in families.items():
            file.write(f"# TYPE {family} {_type(members[0].name)}\n")
            for one in members:
                labels = ",".join(f'{key}="{value}"' for key, value in one.labels.items() if key != "__name__")
                rows = zip((one.time // 1000).tolist(), one.value.tolist(), strict=True)
                file.writelines(f"{one.name}{{{labels}}} {value:.17g} {time / 1000:.3f}\n" for time, value in rows)
                samples += len(one)
        file.write("# EOF\n")
    return samples


def _family(name: str) -> str:
    for end in ("_bucket", "_count", "_sum", "_total"):
        name = name.removesuffix(end)
    return name


def _type(name: str) -> str:
    if name.endswith("_total"):
        return "counter"
    return "histogram" if name.endswith(("_bucket", "_count", "_sum")) else "gauge"
