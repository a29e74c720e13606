"""A device that runs steps: memory for sequences, inputs in one copy, CUDA graphs.

All steps are captured, by their tokens: launched one by one, the kernels of a step of 500 tokens take the host longer than the
GPU. Those of more prompts than a graph has room for run as they come. Read next: `loop.py`, which decides what is in a step.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from bench.gpu.loop import Sequence
from bench.gpu.model import QUERIES, Inputs, Model
from bench.gpu.shapes import PAGE, Limits, Shape

_KEPT: Final = 0.06  # of a GPU's memory, for activations and graphs
_PROMPT_IDS: Final = 65536
_PIECES: Final = 16  # prompts in such a step beyond its full blocks
_START: Final = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Form:
    """Sizes of a step: tokens, sequences that may decode, blocks of prompts, tokens that may be the last of theirs."""

    tokens: int
    decoding: int
    blocks: int
    ends: int


class Device:
    """One GPU (or, for tests, the CPU) with a model on it."""

    def __init__(self, shape: Shape, limits: Limits, *, graphs: bool = True) -> None:
        self.gpu = torch.cuda.is_available()
        self.model = self._made(shape, limits, "cuda" if self.gpu else "cpu")
        self.limits = limits
        self.model.take_cache(limits.kv_tokens or self._room())
        # pages go round, as vLLM's do, and lie about as they do once an engine has served for a while
        self._free = deque((np.random.default_rng(1).permutation(self.model.pages) + 1).tolist())
        self._rows = list(range(limits.sequences - 1, -1, -1))
        self._pages: dict[int, list[int]] = {}
        # ids, rows, positions, lengths, ends, their rows, pieces: one buffer, one copy
        sizes = [limits.batched] * 3 + [limits.sequences] * 3 + [4 * (limits.batched // QUERIES + limits.sequences + 1)]
        self._begin = np.cumsum([0, *sizes]).tolist()[:-1]
        self._staged = torch.zeros(sum(sizes), dtype=torch.int32, device="cpu", pin_memory=self.gpu)
        self._host = self._staged.numpy()
        self._there = torch.zeros_like(self._staged, device=self.model.device)
        self._ids = np.random.default_rng(0).integers(0, shape.vocabulary, _PROMPT_IDS).astype(np.int32)
        self._graphs: list[tuple[Form, Any, Any]] = []
        if self.gpu and graphs:
            self._capture()

    def _made(self, shape: Shape, limits: Limits, device: str) -> Model:
        return Model(shape, limits, device)

    def now(self) -> int:
        """Microseconds."""
        return int((time.perf_counter() - _START) * 1e6)

    def wait_until(self, instant: int) -> None:
        """Come back at `instant`: without sleeping the last millisecond, which a sleep would miss."""
        while (left := instant - self.now()) > 0:
            if left > 2_000:
                time.sleep((left - 1_000) / 1e6)

    def admit(self, sequence: Sequence) -> bool:
        """Take a row and pages for the whole of a sequence; False: there are none."""
        need = -(-(sequence.prompt + sequence.output) // PAGE)
        if not self._rows or need > len(self._free):
            return False
        sequence.row = self._rows.pop()
        mine = [self._free.popleft() for _ in range(need)]
        self._pages[sequence.row] = mine
        self.model.table[sequence.row, :need] = torch.tensor(mine, dtype=torch.int32, device="cpu").to(
            self.model.device, non_blocking=True
        )
        return True

    def release(self, sequence: Sequence) -> None:
        """Give back what it held."""
        self._free += self._pages.pop(sequence.row)
        self._rows.append(sequence.row)

    def run(self, decoding: list[Sequence], pieces: list[tuple[Sequence, int]]) -> None:
        """One step, until its tokens are on the host."""
        n, tokens = len(decoding), len(decoding) + sum(count for _, count in pieces)
        blocks = sum(-(-count // QUERIES) for _, count in pieces)
        form, graph, found = self._form(n, tokens, blocks)
        ids, rows, position, lengths, ends, targets, told = self._parts(self._host, form)
        nobody = self.limits.sequences
        ids[:n], rows[:n] = -1, [one.row for one in decoding]
        position[:n] = [one.prompt + one.made - 1 for one in decoding]
        lengths[:n], lengths[n:] = position[:n] + 1, 0
        ends[:n], targets[:n] = np.arange(n), rows[:n]
        token, k, b = n, n, 0
        for one, count in pieces:
            span = slice(token, token + count)
            ids[span] = self._ids[(one.number * 977 + one.filled + np.arange(count)) % _PROMPT_IDS]
            rows[span], position[span] = one.row, np.arange(one.filled, one.filled + count)
            for at in range(0, count, QUERIES):
                told[4 * b : 4 * b + 4] = one.row, token + at, min(QUERIES, count - at), one.filled + at
                b += 1
            token += count
            if one.filled + count == one.prompt:
                ends[k], targets[k] = token - 1, one.row
                k += 1
        ids[token:], rows[token:], position[token:] = 0, nobody, 0
        ends[k:], targets[k:], told[4 * b :] = 0, nobody, 0
        self._there.copy_(self._staged, non_blocking=True)
        if graph is not None:
            graph.replay()
        else:
            found = self.model.forward(self._inputs(form))
        found[:k].cpu()

    def _form(self, n: int, tokens: int, blocks: int) -> tuple[Form, Any, Any]:
        """The smallest graph that a step fits into, and where it puts tokens; a form of the step's own and no graph, if none."""
        for form, graph, found in self._graphs:
            if form.tokens >= tokens and form.decoding >= n and form.blocks >= blocks and (form.blocks > 0) == (blocks > 0):
                return form, graph, found
        return Form(tokens, n, blocks, min(tokens, self.limits.sequences)), None, None

    def _parts(self, buffer: Any, form: Form) -> list[Any]:
        """The parts of a buffer that a step of a form uses."""
        sizes = [form.tokens] * 3 + [form.decoding] + [form.ends] * 2 + [4 * form.blocks]
        return [buffer[begin : begin + size] for begin, size in zip(self._begin, sizes, strict=True)]

    def _inputs(self, form: Form) -> Inputs:
        *parts, told = self._parts(self._there, form)
        ids, rows, position, lengths, ends, targets = parts
        return Inputs(ids, rows, position, lengths, told.view(-1, 4), ends, targets)

    def _room(self) -> int:
        if not self.gpu:
            raise ValueError("say how many KV tokens: there is no GPU whose memory could tell")
        free, whole = torch.cuda.mem_get_info()
        return int((free - _KEPT * whole) // self.model.kv_bytes)

    def _forms(self) -> list[Form]:
        """Steps that are captured: those that only decode, by sequences, and those with prompts, by tokens."""
        most = self.limits.sequences
        decoding = sorted({size for size in (1, 2, 4, *range(8, most, 8), most) if size <= most})
        sizes = (*range(16, 128, 16), *range(128, 512, 32), *range(512, self.limits.batched + 1, 64))
        mixed = [size for size in sizes if size <= self.limits.batched]
        only = [Form(size, size, 0, size) for size in decoding]
        return only + [Form(size, min(size, most), -(-size // QUERIES) + _PIECES, min(size, most)) for size in mixed]

    def _capture(self) -> None:
        pool = None
        self._there[self._begin[1] : self._begin[2]] = self.limits.sequences  # all rows are nobody's
        self._there[self._begin[5] : self._begin[6]] = self.limits.sequences
        for form in sorted(self._forms(), key=lambda form: -form.tokens):
            inputs = self._inputs(form)
            for _ in range(2):
                self.model.forward(inputs)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                found = self.model.forward(inputs)
            pool = graph.pool()
            self._graphs.insert(0, (form, graph, found))
