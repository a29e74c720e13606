"""Counters and histograms of one gateway process, as Prometheus reads them; names follow OpenTelemetry's GenAI conventions.

A count is one addition to a dictionary; labels are turned into text only when somebody asks. Several processes that share a
port each leave a snapshot for the others, so that whichever is asked answers for all. Knows no request.
Read next: docs/reference/gateway.md for what each metric means.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sageserve.base.units import SECOND

_LOG: Final = logging.getLogger(__name__)
TTFT_S: Final = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
DURATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
PER_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""Bounds in seconds: those the conventions recommend; TTFT up to the laxest promise."""

REQUESTS: Final = "sageserve_gateway_requests_total"
TTFT: Final = "gen_ai_server_time_to_first_token_seconds"
LATE: Final = "sageserve_gateway_first_tokens_late_total"
DURATION: Final = "gen_ai_server_request_duration_seconds"
PER_TOKEN: Final = "gen_ai_server_time_per_output_token_seconds"  # noqa: S105 # a metric's name, not a secret
TOKENS: Final = "gen_ai_client_token_usage_total"
RETRIES: Final = "sageserve_gateway_retries_total"
BREAKS: Final = "sageserve_gateway_breaks_total"
REFUSALS: Final = "sageserve_gateway_refusals_total"
ABORTED: Final = "sageserve_gateway_client_disconnects_total"
BROKEN: Final = "sageserve_gateway_streams_broken_total"
BYTES: Final = "sageserve_gateway_answer_bytes_total"
IN_FLIGHT: Final = "sageserve_gateway_requests_in_flight"
CONNECTIONS: Final = "sageserve_gateway_connections"
WAITING: Final = "sageserve_gateway_requests_waiting"
HELD: Final = "sageserve_gateway_requests_held"
AWAY: Final = "sageserve_gateway_control_away"
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    REQUESTS: ("counter", "requests answered, by model, tier, region that served and status"),
    TTFT: ("histogram", "from the arrival of a streamed request to its first event"),
    LATE: ("counter", "of those, streams whose first event came after what their tier promises to a prompt of that length"),
    DURATION: ("histogram", "from the arrival of a request to the end of its answer"),
    PER_TOKEN: ("histogram", "between the first and the last event of a stream, per token after the first"),
    TOKENS: ("counter", "tokens of prompts and answers, as engines reported them"),
    RETRIES: ("counter", "requests sent to another instance before their first byte, by reason"),
    BREAKS: (
        "counter",
        "instances not reached, broken off before a first byte, or mute, by who is charged: instance, request or nobody",
    ),
    REFUSALS: (
        "counter",
        "requests answered with an error of the gateway's own, by name of the key, tier and status",
    ),
    ABORTED: ("counter", "requests whose client left before the end"),
    BROKEN: ("counter", "streams that an engine broke off after their first event"),
    BYTES: ("counter", "bytes of answers"),
    IN_FLIGHT: ("gauge", "requests that were not answered yet"),
    CONNECTIONS: ("gauge", "connections of clients"),
    WAITING: ("gauge", "requests of batch tiers that wait for spare capacity"),
    HELD: ("gauge", "requests that wait for an endpoint without instances to be woken"),
    AWAY: ("gauge", "processes that do not hear control, and go on with what it said last"),
}
Labels = tuple[str, ...]
"""Values in the order of the names in NAMED."""
NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    REQUESTS: ("gen_ai_request_model", "tier", "region", "code"),
    TTFT: ("gen_ai_request_model", "tier"),
    LATE: ("gen_ai_request_model", "tier"),
    DURATION: ("gen_ai_request_model", "tier"),
    PER_TOKEN: ("gen_ai_request_model", "tier"),
    TOKENS: ("gen_ai_request_model", "gen_ai_token_type"),
    RETRIES: ("reason",),
    BREAKS: ("charged",),
    REFUSALS: ("key", "tier", "code"),
}


class MicrosHistogram:
    """Counts by upper bound."""

    __slots__ = ("_bounds", "_total_us", "counts")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds = [bound * SECOND for bound in bounds_s]
        self.counts = [0] * (len(bounds_s) + 1)
        self._total_us = 0.0

    def add(self, value: float) -> None:
        """Count a value in microseconds."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self._total_us += value

    def samples(self, name: str, labels: str) -> Iterable[tuple[str, float]]:
        """Its lines, cumulative as Prometheus wants them."""
        so_far = 0
        for bound, count in zip([*self._bounds, None], self.counts, strict=True):
            so_far += count
            text = "+Inf" if bound is None else f"{bound / SECOND:g}"
            yield f'{name}_bucket{{{labels},le="{text}"}}', so_far
        yield f"{name}_sum{{{labels}}}", self._total_us / SECOND
        yield f"{name}_count{{{labels}}}", so_far


class TierMeter:
    """What is counted of one model and tier at every request: fields, because a look-up by labels costs a microsecond each."""

    __slots__ = ("codes", "duration", "late", "model", "output", "per_token", "prompt", "tier", "ttft")

    def __init__(self, model: str, tier: str) -> None:
        self.model = model
        self.tier = tier
        self.codes: dict[tuple[int, int], int] = {}  # requests by (region, status)
        self.prompt = 0
        self.output = 0
        self.late = 0  # first tokens
        self.duration = MicrosHistogram(DURATION_S)
        self.ttft = MicrosHistogram(TTFT_S)
        self.per_token = MicrosHistogram(PER_TOKEN_S)

    def samples(self, regions: Sequence[str]) -> Iterable[tuple[str, float]]:
        """Its lines; none while nothing was counted."""
        labels = label_text(NAMED[TTFT], (self.model, self.tier))
        for (region, status), count in self.codes.items():
            values = (self.model, self.tier, regions[region], str(status))
            yield f"{REQUESTS}{{{label_text(NAMED[REQUESTS], values)}}}", count
        for name, histogram in ((DURATION, self.duration), (TTFT, self.ttft), (PER_TOKEN, self.per_token)):
            if any(histogram.counts):
                yield from histogram.samples(name, labels)
        if any(self.ttft.counts):
            yield f"{LATE}{{{labels}}}", self.late


class Meter:
    """Everything one process counts.

    Args:
        models: names in order of their codes.
        tiers: names in order of their codes.
        regions: names in order of their codes.
    """

    def __init__(self, models: Sequence[str], tiers: Sequence[str], regions: Sequence[str]) -> None:
        self._regions = regions
        self.lines = [[TierMeter(model, tier) for tier in tiers] for model in models]
        self.answer_bytes = 0
        self.counters: dict[tuple[str, Labels], float] = {}
        self.gauges: dict[str, float] = dict.fromkeys((IN_FLIGHT, CONNECTIONS, WAITING, HELD, AWAY), 0)

    def count(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Add to a counter."""
        key = (name, labels)
        self.counters[key] = self.counters.get(key, 0) + amount

    def samples(self) -> dict[str, float]:
        """Every line and its value."""
        lines = dict(self.gauges)
        for (name, labels), value in self.counters.items():
            text = label_text(NAMED.get(name, ()), labels)
            lines[f"{name}{{{text}}}" if text else name] = value
        lines[BYTES] = self.answer_bytes
        for tiers in self.lines:
            for kind, total in (("input", sum(one.prompt for one in tiers)), ("output", sum(one.output for one in tiers))):
                if total:
                    lines[f"{TOKENS}{{{label_text(NAMED[TOKENS], (tiers[0].model, kind))}}}"] = total
            for one in tiers:
                lines.update(one.samples(self._regions))
        return lines


def label_text(names: Sequence[str], values: Labels) -> str:
    """Labels as the text format writes them."""
    quoted = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in values)
    return ",".join(f'{name}="{value}"' for name, value in zip(names, quoted, strict=True))


def show(samples: Mapping[str, float]) -> bytes:
    """Lines in Prometheus's text format, grouped by metric."""
    groups: dict[str, list[str]] = {name: [] for name in KINDS}
    for line, value in samples.items():
        name = line.partition("{")[0]
        if name not in groups:
            name = name.rpartition("_")[0]
        groups[name].append(f"{line} {value:.17g}\n")
    text = []
    for name, lines in groups.items():
        kind, about = KINDS[name]
        text += [f"# HELP {name} {about}\n# TYPE {name} {kind}\n", *lines]
    return "".join(text).encode()


class Snapshots:
    """What the processes behind one port leave for each other.

    Args:
        folder: of these processes alone; None: there is one process.
        worker: number of this one.
    """

    def __init__(self, folder: Path | None, worker: int) -> None:
        self._folder = folder
        self._name = f"worker-{worker}.json"

    def leave(self, meter: Meter) -> None:
        """Write this process's numbers for the others; a full disk leaves them those of before."""
        if self._folder is not None:
            part = self._folder / f"{self._name}.part"
            try:
                part.write_bytes(msgspec.json.encode(meter.samples()))
                part.replace(self._folder / self._name)
            except OSError as error:
                _LOG.error("counts cannot be left for the other processes: %s", error)

    def total(self, meter: Meter) -> dict[str, float]:
        """The sum over all processes."""
        lines = meter.samples()
        for path in sorted(self._folder.glob("worker-*.json")) if self._folder is not None else ():
            if path.name == self._name:
                continue
            try:
                others = msgspec.json.decode(path.read_bytes(), type=dict[str, float])
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _LOG.error("the counts of another process cannot be read: %s", error)
                continue
            for line, value in others.items():
                lines[line] = lines.get(line, 0) + value
        return lines
