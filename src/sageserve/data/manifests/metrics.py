"""What an autoscaler asks for, as a signal that engines of a simulation show; all else is refused by name, with the reason.

Few forms are enough: the sum, the mean or the plain name of one metric, or the sum of running and waiting. A rate, a window or a
quantile shows something that is not what an engine's page says now. Knows no file. Read next: `read.py`.
"""

import re
from typing import Final, Literal, TypeAlias

from sageserve.base.config.autoscalers import ScaledSignal
from sageserve.data.history.names import ALIASES, EngineSignal, canonical

Gathered: TypeAlias = Literal["sum", "mean"]

_READ: Final = {EngineSignal.RUNNING: "running", EngineSignal.WAITING: "waiting", EngineSignal.KV_USE: "kv"}
_KNOWN: Final[dict[str, str]] = {alias.metric: _READ[alias.signal] for alias in ALIASES if alias.signal in _READ}
_NAME: Final = re.compile(r"[a-zA-Z_:][\w:]*")
_LABELS: Final = re.compile(r"\{[^{}]*\}")
_BY: Final = re.compile(r"\b(by|without)\s*\([^()]*\)")
_FUNCTIONS: Final[dict[str, str]] = {
    "rate": "a rate is of the past minutes, not of now",
    "irate": "a rate is of the past minutes, not of now",
    "increase": "growth is of the past minutes, not of now",
    "deriv": "a slope is of the past minutes, not of now",
    "histogram_quantile": "quantiles of latencies are not simulated as a signal",
    "avg_over_time": "means over a window are not simulated as a signal",
    "max_over_time": "the most of a window is not simulated as a signal",
    "max": "the fullest instance alone is not simulated as a signal",
    "min": "the emptiest instance alone is not simulated as a signal",
    "predict_linear": "extrapolations are not simulated as a signal",
}
_FOREIGN: Final[dict[str, str]] = {
    "DCGM_": "how busy a GPU is says whether anything ran, not how much more fits; no simulation shows it",
    "container_": "processor and memory of a container say nothing of an engine's load",
    "http_": "what a proxy in front of engines counts is not simulated",
    "istio_": "what a proxy in front of engines counts is not simulated",
    "envoy_": "what a proxy in front of engines counts is not simulated",
}


class NotSimulated(ValueError):
    """Why a metric cannot be played."""


def signal_of(query: str) -> tuple[ScaledSignal, Gathered]:
    """The signal of a query or of a bare metric name, and how instances' values are gathered.

    Raises:
        NotSimulated: no signal is like it.
    """
    text = _BY.sub("", _LABELS.sub("", query)).strip()
    for function, reason in _FUNCTIONS.items():
        if re.search(rf"\b{function}\s*\(", text):
            raise NotSimulated(f"{function}(): {reason}")
    if re.search(r"\[[^]]*\]", text):
        raise NotSimulated("a range in brackets is of the past, not of now")
    plain = re.sub(r"\s+", "", text)
    if plain.startswith("avg(") and (match := re.fullmatch(r"avg\(([^()]+)\)", plain)):
        return _signal((match[1],)), "mean"
    parts = _summed(plain)
    if parts is None:
        raise NotSimulated(f"{query!r} is neither a metric, its sum, its mean, nor the sum of running and waiting")
    return _signal(parts), "sum"


def _summed(plain: str) -> tuple[str, ...] | None:
    """Metrics that are added up: `sum(a)`, `sum(a+b)`, `sum(a)+sum(b)`, `a`."""
    if match := re.fullmatch(r"sum\(([^()]+)\)", plain):
        plain = match[1]
    parts = []
    for part in plain.split("+"):
        inner = re.fullmatch(r"sum\(([^()]+)\)", part)
        name = inner[1] if inner else part
        if not _NAME.fullmatch(name):
            return None
        parts.append(name)
    return tuple(parts)


def _signal(metrics: tuple[str, ...]) -> ScaledSignal:
    for metric in metrics:
        for prefix, reason in _FOREIGN.items():
            if metric.startswith(prefix):
                raise NotSimulated(f"{metric}: {reason}")
    names = [canonical(metric) for metric in metrics]
    kinds = sorted(_KNOWN.get(name, "") for name in names)
    match kinds:
        case ["kv"]:
            return "kv"
        case ["waiting"]:
            return "waiting"
        case ["running", "waiting"]:
            return "requests"
        case ["running"]:
            raise NotSimulated(f"{metrics[0]} alone stops growing when an engine is full; running + waiting is simulated")
        case _:
            unknown = next((metric for metric, name in zip(metrics, names, strict=True) if name not in _KNOWN), metrics[0])
            raise NotSimulated(f"{unknown} is no metric of an engine that is simulated: running, waiting, share of the KV cache")
