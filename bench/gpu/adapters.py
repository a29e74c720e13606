"""What LoRA adapters add to a step: how many differ in it, how many tokens have one, and what it takes to bring one.

An adapter is a pair of narrow matrices beside each matrix of a layer: `rank` wide for queries, keys, values, the way back, gate,
up and down. Tokens are sorted by adapter, and two Triton kernels multiply each block by its adapter's matrices; the first is
split over the depth of the matrix, as engines do it, because a batch that decodes has few tokens. Needs torch and Triton.
Read next: `model.py`.
"""

import csv
import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
import triton

from bench.gpu import kernels
from bench.gpu.machine import Device
from bench.gpu.model import Inputs, Model, placed_by
from bench.gpu.power import before, holding
from bench.gpu.shapes import LIMITS, SHAPES, Limits, Shape

ROWS: Final = 16  # tokens of one adapter that a program takes
SPLIT: Final = 16  # parts of a matrix's depth
RANKS: Final = (16, 64)
BATCHES: Final = (1, 8, 32, 64, 127)
DIFFERENT: Final = (1, 2, 4, 8, 16, 32, 64)
PROMPTS: Final = (0, 512)
REPEATED: Final = 7
PASSES: Final = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """First [slots, parts * rank, depth] and second [slots, wide, rank] matrices of all adapters beside one matrix.

    Columns from `edges[0]` on belong to the second part, from `edges[1]` on to the third.
    """

    first: Any
    second: Any
    parts: int
    edges: tuple[int, int]


class Adapted(Model):
    """A dense model with adapters in `slots` places; `adapter` says which each row has, -1: none."""

    def __init__(self, shape: Shape, limits: Limits, device: str, slots: int, rank: int) -> None:
        super().__init__(shape, limits, device)
        self.slots, self.rank = slots, rank
        self.adapter = torch.full((limits.sequences + 1,), -1, dtype=torch.int32, device=device)
        self._placed: tuple[int, Any, Any, Any] | None = None
        self._most = 0
        query, key = shape.heads * shape.head, shape.kv_heads * shape.head
        never = 1 << 30
        parts = {
            "qkv": (3, (query, query + key)),
            "join": (1, (never,) * 2),
            "up": (2, (shape.inner, never)),
            "down": (1, (never,) * 2),
        }
        self.pairs = [{name: self._pair(layer[name], *parts[name]) for name in parts} for layer in self.layers]

    def _pair(self, weights: Any, parts: int, edges: tuple[int, int]) -> Pair:
        wide, depth = weights.shape
        return Pair(self._drawn(self.slots, parts * self.rank, depth), self._drawn(self.slots, wide, self.rank), parts, edges)

    @property
    def adapter_bytes(self) -> int:
        """Of one adapter."""
        found = [int(one[0].numel()) for layer in self.pairs for pair in layer.values() for one in (pair.first, pair.second)]
        return sum(found) * int(self.embedding.element_size())

    def scores(self, inputs: Inputs) -> Any:
        """As without adapters, with those of the rows."""
        self._placed = placed_by(self.adapter[inputs.rows], self.slots, ROWS)
        return super().scores(inputs)

    def _linear(self, x: Any, number: int, name: str) -> Any:
        out = super()._linear(x, number, name)
        assert self._placed is not None
        blocks, *placed = self._placed
        pair = self.pairs[number][name]
        total, depth, wide = len(x), x.shape[1], out.shape[1]
        narrow = torch.zeros(total, pair.parts * self.rank, dtype=torch.float32, device=self.device)
        deep = min(128, triton.next_power_of_2(depth))
        piece = -(-depth // (SPLIT * deep)) * deep
        sizes: dict[str, Any] = {"DEPTH": depth, "RANK": self.rank, "PARTS": pair.parts, "PIECE": piece}
        kernels.shrink[(blocks, -(-depth // piece), pair.parts)](
            x, pair.first, narrow, *placed, total, **sizes, BLOCK_M=ROWS, BLOCK_K=deep, num_warps=4, num_stages=3
        )
        tile = 128 if min(self.shape.kv_heads * self.shape.head, self.shape.inner) % 128 == 0 else 16
        edge, after = pair.edges
        sizes = {"WIDE": wide, "RANK": self.rank, "PARTS": pair.parts, "EDGE": edge, "NEXT": after}
        kernels.expand[(blocks, -(-wide // tile))](
            narrow, pair.second, out, *placed, total, **sizes, BLOCK_M=ROWS, BLOCK_N=tile, num_warps=4
        )
        return out


class AdaptedDevice(Device):
    """One that has adapters."""

    def __init__(self, shape: Shape, limits: Limits, slots: int, rank: int, *, graphs: bool = True) -> None:
        self._kind = (slots, rank)
        super().__init__(shape, limits, graphs=graphs)

    def _made(self, shape: Shape, limits: Limits, device: str) -> Adapted:
        return Adapted(shape, limits, device, *self._kind)


def timed(device: Device, limits: Limits, decoding: int, prompt: int, different: int) -> float:
    """Microseconds of a step of which each sequence has one of so many adapters in turn; 0: none has one. The median."""
    engine = holding(device, limits, decoding, 2 + REPEATED)
    model = device.model
    if isinstance(model, Adapted):
        rows = np.full(limits.sequences + 1, -1, np.int32)
        if different:
            rows[[one.row for one in engine.decoding]] = np.arange(decoding) % different
            rows[rows < 0] = 0  # prompts that are to come have the first
            rows[limits.sequences] = -1
        model.adapter.copy_(torch.from_numpy(rows))
    times = [before(engine, number, prompt).time for number in range(2 + REPEATED)]
    engine.leave()
    return median(times[2:])


def brought(model: Adapted) -> dict[str, float]:
    """Milliseconds of bringing one adapter from pinned, and from ordinary memory, matrix by matrix; and in one piece."""
    pairs = [one for layer in model.pairs for pair in layer.values() for one in (pair.first[0], pair.second[0])]
    found = {}
    for name, pinned in (("pinned", True), ("ordinary", False)):
        there = [torch.empty(one.shape, dtype=one.dtype, device="cpu", pin_memory=pinned) for one in pairs]
        found[name] = _took(lambda there=there: [to.copy_(one, non_blocking=True) for to, one in zip(pairs, there, strict=True)])
    size = model.adapter_bytes
    piece = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    to = torch.empty(size, dtype=torch.uint8, device=model.device)
    found["one piece"] = _took(lambda: to.copy_(piece, non_blocking=True))
    return found


def _took(act: Any) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for _ in range(8):
        begin.record()
        act()
        end.record()
        torch.cuda.synchronize()
        times.append(float(begin.elapsed_time(end)))
    return median(times[2:])


def run(into: Path) -> None:
    """Measure steps with adapters and without, and write adapters.csv: medians over passes, in turns."""
    into.mkdir(parents=True, exist_ok=True)
    limits = LIMITS["dense"]
    slots = max(DIFFERENT)
    asked = [(n, p, k) for n in BATCHES for p in PROMPTS for k in (0, *DIFFERENT) if k <= n]
    rows: list[list[Any]] = []
    with torch.inference_mode():
        for rank in (0, *RANKS):
            device = AdaptedDevice(SHAPES["dense"], limits, slots, rank) if rank else Device(SHAPES["dense"], limits)
            mine = asked if rank else [one for one in asked if not one[2]]
            passes = [[timed(device, limits, *one) for one in mine] for _ in range(PASSES)]
            rows += [[rank, *one, round(median(same))] for one, same in zip(mine, zip(*passes, strict=True), strict=True)]
            if isinstance(device.model, Adapted):
                times = ", ".join(f"{name} {ms:.2f} ms" for name, ms in brought(device.model).items())
                print(f"rank {rank}: {device.model.adapter_bytes / 1e6:.1f} MB; brought from {times}", flush=True)
            del device
            gc.collect()
            torch.cuda.empty_cache()
            with (into / "adapters.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["rank", "decoding", "prompt", "different", "time"])
                writer.writerows(rows)
    print(f"{len(rows)} steps, {torch.cuda.get_device_name()}", file=sys.stderr)
