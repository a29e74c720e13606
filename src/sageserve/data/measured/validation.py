"""What a validation found: how far the simulated engine is from the measured one, run by run.

Errors are fractions. `*_mape` is the mean over requests of |simulated - measured| / measured, `*_bias` is the simulated
mean over the measured mean, minus one. Knows no simulator. Read next: `sim/calibration/validation.py`,
docs/reference/engine-model.md for the numbers, docs/reference/latency.md for TTFT, TPOT and E2E.
"""

from dataclasses import dataclass

import msgspec

from sageserve.base.records import Floats


class LatencyErrors(msgspec.Struct, frozen=True):
    """Errors over some requests; null where there was nothing to compare (TPOT of one-token answers)."""

    requests: int
    e2e_mape: float | None
    tpot_mape: float | None
    ttft_mape: float | None
    e2e_bias: float | None
    tpot_bias: float | None
    ttft_bias: float | None


class LowLoad(msgspec.Struct, frozen=True):
    """TTFT of requests that met at most `others` others in the engine and nobody in its queue.

    `*_ms` are median absolute and mean signed errors; the first request of a run is left out, it warms the engine up.
    """

    requests: int
    others: int
    ttft_mape: float | None
    ttft_error_ms: float | None
    ttft_bias_ms: float | None


class ErrorPart(msgspec.Struct, frozen=True):
    """Errors over the held-out requests of which something is between `low` and `high`: where the error lies.

    `by` is what is between them: `prompt` (tokens), `company` (others in the engine when the request came) or `time` (seconds
    since the first arrival).
    """

    by: str
    low: float
    high: float
    requests: int
    e2e_mape: float | None
    ttft_mape: float | None
    e2e_bias: float | None


class CurveErrors(msgspec.Struct, frozen=True):
    """Mean absolute errors of the second-by-second curves: requests, requests, share of the KV cache."""

    running: float
    running_mean: float
    waiting: float
    waiting_mean: float
    kv_share: float | None


class Coefficients(msgspec.Struct, frozen=True):
    """The engine model's curve and coefficients; `core/engine/timing.py` has the formula."""

    iteration_ms: tuple[tuple[int, float], ...]
    eager_ms: float
    decode_us_per_sequence: float
    kv_ns_per_token: float
    attention_ns_per_token2: float
    first_token_ms: float
    kv_tokens: int


class FromCounters(msgspec.Struct, frozen=True):
    """What the first half of the counters alone predicts of the second half of the requests."""

    heldout: LatencyErrors | None
    refused: str = ""
    coefficients: Coefficients | None = None


class RunVerdict(msgspec.Struct, frozen=True):
    """One run: coefficients fitted on the first half of its requests, judged on both halves.

    `terms` are the numbers that the fit looked for (`sim/calibration/coefficients.py`), of which the curve is made; `spread` says
    how far each may be off, as a share of itself; `untold` names those that the requests do not tell. `where` parts the second
    half in thirds by prompt, company and time.
    """

    fit: LatencyErrors
    heldout: LatencyErrors
    low_load: LowLoad
    curves: CurveErrors | None
    counters: FromCounters | None
    coefficients: Coefficients
    terms: dict[str, float]
    spread: dict[str, float]
    untold: tuple[str, ...]
    evaluations: int
    preemptions: int
    notes: tuple[str, ...] = ()
    where: tuple[ErrorPart, ...] = ()


class MeanVerdict(msgspec.Struct, frozen=True):
    """A run of which only means are known: relative errors of mean E2E, TPOT and TTFT.

    `one_point`: E2E after one factor on all coefficients met the mean E2E of another run of the same model, GPU and
    parallelism, by the name of that run.
    """

    model: str
    gpu: str
    tp: int
    e2e_error: float
    tpot_error: float | None
    ttft_error: float | None
    one_point: dict[str, float]


class Validation(msgspec.Struct, frozen=True):
    """Every run of a folder; `skipped` says why others were not judged."""

    runs: dict[str, RunVerdict]
    means: dict[str, MeanVerdict]
    skipped: dict[str, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity second by second, measured and simulated; NaN where there is nothing. float64[n] each."""

    name: str
    time_s: Floats
    measured: Floats
    simulated: Floats


@dataclass(frozen=True, slots=True)
class Scatter:
    """One quantity request by request: seconds measured and simulated, float64[n] each; `held` is 1 for the second half."""

    name: str
    measured: Floats
    simulated: Floats
    held: Floats


@dataclass(frozen=True, slots=True)
class RunPicture:
    """What is drawn of one run."""

    name: str
    curves: tuple[Curve, ...]
    scatters: tuple[Scatter, ...]


def validation_json(found: Validation) -> bytes:
    """The whole validation as indented JSON with a final newline; the same bytes for the same numbers."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
