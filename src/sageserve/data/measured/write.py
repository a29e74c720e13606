"""Writes measured runs as the folder that `files.py` reads: whole files, or none.

Knows the columns and no simulator. Read next: `files.py` for what the columns mean.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import UNSET
from sageserve.base.units import SECOND
from sageserve.data.measured.files import EXPERIMENTS, MILLI, REQUESTS, SERIES
from sageserve.data.measured.runs import MeasuredRun

_REQUEST_COLUMNS: Final = (
    *("experiment", "request_id", "arrival_s", "input_tokens", "output_tokens"),
    *("sched_delay_ms", "ttft_ms", "tpot_ms", "e2e_ms", "cached_tokens"),
)
_SERIES_COLUMNS: Final = (
    *("experiment", "t_s", "prompt_tok_s", "gen_tok_s", "running", "waiting", "kv_cache_pct", "preemptions"),
)
_EXPERIMENT_COLUMNS: Final = (
    *("experiment", "source", "license", "engine", "model", "gpu", "tp", "dp", "ep", "max_num_seqs"),
    *("max_num_batched_tokens", "chunked_prefill", "prefix_caching", "kv_blocks", "block_size", "workload", "n"),
    *("in_mean", "out_mean", "rate", "ttft_mean_ms", "ttft_p90_ms", "ttft_p99_ms", "tpot_mean_ms", "tpot_p90_ms"),
    *("itl_mean_ms", "e2e_mean_ms", "e2e_p90_ms", "quality"),
)


def write_measured(folder: Path, runs: Iterable[MeasuredRun]) -> None:
    """Write runs as a folder that `read_measured` reads; each file is put in place whole, experiments.csv last.

    Raises:
        MeasurementError: the folder cannot be written.
    """
    everything = tuple(runs)
    texts = {
        REQUESTS: _csv(_REQUEST_COLUMNS, (row for run in everything for row in _request_rows(run))),
        SERIES: _csv(_SERIES_COLUMNS, (row for run in everything for row in _series_rows(run))),
        EXPERIMENTS: _csv(_EXPERIMENT_COLUMNS, (_experiment_row(run) for run in everything)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            part = folder / f".{name}.part-{os.getpid()}"
            try:
                part.write_text(text, "utf-8")
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise MeasurementError(f"{folder} cannot be written: {error.strerror or error}", hint="choose another place") from None


def _csv(columns: tuple[str, ...], rows: Iterable[Mapping[str, str | int | float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _request_rows(run: MeasuredRun) -> Iterable[Mapping[str, str | int | float]]:
    requests = run.requests
    if requests is None:
        return
    for number in range(len(requests)):
        yield {
            "experiment": run.name,
            "request_id": number,
            "arrival_s": f"{requests.arrival[number] / SECOND:.6f}",
            "input_tokens": int(requests.prompt[number]),
            "output_tokens": int(requests.output[number]),
            "ttft_ms": f"{requests.ttft[number] / MILLI:.3f}",
            "tpot_ms": "" if requests.tpot[number] == UNSET else f"{requests.tpot[number] / MILLI:.3f}",
            "e2e_ms": f"{requests.e2e[number] / MILLI:.3f}",
            "cached_tokens": "" if requests.cached is None else int(requests.cached[number]),
        }


def _series_rows(run: MeasuredRun) -> Iterable[Mapping[str, str | int | float]]:
    series = run.series
    if series is None:
        return
    for number in range(len(series)):
        share = float(series.kv_share[number])
        yield {
            "experiment": run.name,
            "t_s": f"{series.time[number] / SECOND:.6f}",
            "prompt_tok_s": f"{series.prompt_rate[number]:.3f}",
            "gen_tok_s": f"{series.output_rate[number]:.3f}",
            "running": f"{series.running[number]:g}",
            "waiting": f"{series.waiting[number]:g}",
            "kv_cache_pct": "" if np.isnan(share) else f"{share * 100:.3f}",
            "preemptions": "" if series.preemptions is None else f"{series.preemptions[number]:g}",
        }


def _experiment_row(run: MeasuredRun) -> Mapping[str, str | int | float]:
    limits, means = run.limits, run.means
    row: dict[str, str | int | float] = {
        "experiment": run.name,
        "source": run.source,
        "engine": run.engine,
        "model": run.model,
        "gpu": run.gpu,
        "tp": run.tp,
        "dp": run.dp,
        "max_num_seqs": limits.max_sequences,
        "max_num_batched_tokens": limits.max_batched_tokens,
        "chunked_prefill": str(limits.chunked).lower(),
        "prefix_caching": str(limits.prefix_caching).lower(),
        "kv_blocks": "" if limits.kv_tokens is None else limits.kv_tokens // limits.block_size,
        "block_size": limits.block_size,
        "workload": run.workload,
        "quality": run.quality,
    }
    if means is None:
        return row
    row |= {"n": means.requests, "in_mean": f"{means.prompt:.3f}", "out_mean": f"{means.output:.3f}"}
    row["rate"] = " + ".join(f"{phase.rate:.4f} rps x{phase.seconds:.3f}s" for phase in means.phases)
    for name, value in (("ttft_mean_ms", means.ttft), ("tpot_mean_ms", means.tpot), ("e2e_mean_ms", means.e2e)):
        row[name] = "" if value is None else f"{value / MILLI:.3f}"
    return row
