"""Raw series for tests: what one engine shows at equal steps."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sageserve.base.units import SECOND
from sageserve.data.history.raw import RawSeries

BEGIN = 1_700_000_100 * SECOND
STEP = 15 * SECOND


def series(name: str, values: Sequence[float], begin: int = BEGIN, step: int = STEP, /, **labels: str) -> RawSeries:
    time = begin + np.arange(len(values)) * step
    return RawSeries({"__name__": name, "pod": "a", "model_name": "m"} | labels, time, np.array(values, np.float64))


def engine(done: Sequence[float], inside: Sequence[float], pod: str = "a", **more: str) -> list[RawSeries]:
    """Completions and running requests; every request has 100 prompt and 10 output tokens."""
    finished = np.array(done)
    return [
        series("vllm:num_requests_running", inside, pod=pod, **more),
        series("vllm:num_requests_waiting", [0.0] * len(inside), pod=pod, **more),
        series("vllm:request_success_total", done, pod=pod, finished_reason="stop", **more),
        series("vllm:prompt_tokens_total", (finished * 100).tolist(), pod=pod, **more),
        series("vllm:generation_tokens_total", (finished * 10).tolist(), pod=pod, **more),
    ]


def matrix(found: Iterable[RawSeries], warnings: Sequence[str] = (), **more: object) -> bytes:
    """Prometheus' answer with these series."""
    result = [
        {
            "metric": dict(one.labels),
            "values": [[t / 1e6, _text(v)] for t, v in zip(one.time.tolist(), one.value.tolist(), strict=True)],
        }
        for one in found
    ]
    body: Mapping[str, object] = {"status": "success", "data": {"resultType": "matrix", "result": result}} | more
    return json.dumps(dict(body) | ({"warnings": list(warnings)} if warnings else {}), separators=(",", ":")).encode()


def _text(value: float) -> str:
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(repr(value), repr(value))
