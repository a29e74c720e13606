"""Whether long prompts have long answers: what windows of two histograms show of it together, and lengths joined accordingly.

Counters hold no request, so no pair of lengths. But engines count both lengths of a request when it is done, and where answers go
with prompts, windows that happen to have longer prompts have longer answers too. Each length gets its bucket's normal score; the
scores' means by window, each against the one before it so that no daily rise counts, correlate as the lengths' own scores do,
times what buckets hide of both. What is within twice its standard error is taken for none. Read next: `requests.py`;
docs/reference/reconstruction.md for what it finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sageserve.base.records import Floats, Ints
from sageserve.data.history.records import HistogramHistory
from sageserve.data.rebuild.demand import DemandStream

REQUESTS_LEAST: Final = 20.0  # of a window: below, a mean is a few lengths
WINDOWS_LEAST: Final = 8  # differences that are independent of each other
SIGMAS: Final = 2.0
MOST: Final = 0.95  # nothing is known that well
_OVERLAP: Final = 1.5  # differences share a window with the next: so many are worth one that does not


@dataclass(frozen=True, slots=True)
class LengthRank:
    """Correlation of the normal scores of prompt and answer lengths.

    Args:
        found: 0 where none shows.
        error: standard error of what shows; infinite where there are too few windows.
    """

    found: float
    error: float


def length_ranks(streams: Sequence[DemandStream]) -> Mapping[tuple[str, str], LengthRank]:
    """By model and class, all regions together."""
    groups: dict[tuple[str, str], list[DemandStream]] = {}
    for one in streams:
        groups.setdefault((one.model, one.tier), []).append(one)
    return {key: _rank(members) for key, members in groups.items()}


def _rank(streams: Sequence[DemandStream]) -> LengthRank:
    pairs = [(one.prompt, one.output) for one in streams]
    moves = [_moves(prompt, output) for prompt, output in pairs if prompt is not None and output is not None]
    if not moves:
        return LengthRank(0.0, float("inf"))
    prompt, output = (np.concatenate([one[side] for one in moves]) for side in (0, 1))
    hidden = float(np.mean([one[2] for one in moves]))
    count = len(prompt) / _OVERLAP
    size = float((prompt**2).sum() * (output**2).sum())
    if count < WINDOWS_LEAST or not size > 0 or not hidden > 0:
        return LengthRank(0.0, float("inf"))
    shown = float((prompt * output).sum()) / size**0.5
    error = (1.0 - shown**2) / count**0.5
    found = float(np.clip(shown / hidden, -MOST, MOST)) if abs(shown) > SIGMAS / count**0.5 else 0.0
    return LengthRank(found, error / hidden)


def _moves(prompt: HistogramHistory, output: HistogramHistory) -> tuple[Floats, Floats, float]:
    """Of both lengths, mean scores against the window before, in units of what chance makes; and what buckets leave of scores."""
    if prompt.grid != output.grid:
        return np.zeros(0), np.zeros(0), 1.0
    counts = [np.maximum(one.counts, 0.0) for one in (prompt, output)]
    sizes = [one.sum(axis=1) for one in counts]
    there = np.flatnonzero((sizes[0] >= REQUESTS_LEAST) & (sizes[1] >= REQUESTS_LEAST))
    after = there[1:][np.diff(there) == 1]
    found, hidden = [], 1.0
    for one, size in zip(counts, sizes, strict=True):
        scores, kept = _scores(one.sum(axis=0))
        mean = (one @ scores) / np.maximum(size, 1.0)
        found.append((mean[after] - mean[after - 1]) / np.sqrt(1.0 / size[after] + 1.0 / size[after - 1]))
        hidden *= kept**0.5
    return found[0], found[1], hidden


def _scores(counts: Floats) -> tuple[Floats, float]:
    """Normal score by bucket, and their variance: 1 but for what buckets hide."""
    total = float(counts.sum())
    if not total > 0:
        return np.zeros(len(counts)), 0.0
    share = counts / total
    edge = np.clip(np.concatenate(([0.0], np.cumsum(share))), 0.0, 1.0)
    density = np.exp(-0.5 * ndtri(np.clip(edge, 1e-12, 1.0 - 1e-12)) ** 2) / np.sqrt(2.0 * np.pi)
    density[[0, -1]] = 0.0
    scores: Floats = np.where(share > 0, -np.diff(density) / np.maximum(share, 1e-300), 0.0)  # mean of a bucket's own scores
    return scores, float((share * scores**2).sum())


def joined(prompt: NDArray[Any], output: NDArray[Any], rho: float, noise: Floats) -> NDArray[Any]:
    """The same answer lengths, in an order whose normal scores correlate with those of the prompts by `rho`.

    Args:
        prompt, output: lengths of the same requests.
        rho: from -1 to 1.
        noise: float64[n], normal.
    """
    if not len(prompt):
        return output
    ranks = np.argsort(np.argsort(prompt, kind="stable"), kind="stable")
    score = rho * ndtri((ranks + 0.5) / len(ranks)) + np.sqrt(1.0 - rho**2) * noise
    found = np.empty_like(output)
    found[np.argsort(score, kind="stable")] = np.sort(output)
    return found


def joined_by_window(
    lengths: tuple[NDArray[Any], NDArray[Any]], rows: Ints, rho: float, rng: np.random.Generator
) -> NDArray[Any]:
    """As `joined`, window by window: no answer leaves its own.

    Args:
        lengths: of prompts and answers.
        rows: int64[windows + 1], rising: where windows begin.
        rho: from -1 to 1.
        rng: decides the rest.
    """
    prompt, output = lengths
    noise = rng.standard_normal(len(output))
    found = output.copy()
    for first, last in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        found[first:last] = joined(prompt[first:last], output[first:last], rho, noise[first:last])
    return found
