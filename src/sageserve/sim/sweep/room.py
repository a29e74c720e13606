"""How many workers fit into this machine: cores that may be used, and memory for what each of them holds.

Reads what the operating system says about the machine; decides nothing else. Read next: `processes.py`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sageserve.sim.sweep.cell import Cell

WORKER_BYTES: Final = 400 << 20  # the interpreter with compiled code and solvers: 250 MB to 350 MB measured
REQUEST_BYTES: Final = 150  # 64 of the row, 27 of the trace, the rest while both are made: 120 measured
_ROW_BYTES: Final = 30  # of a trace as text: the shortest known format has 40 a row
_SQUEEZED: Final = 5  # text in gzip or zstd is 4 to 8 times smaller
_SHARE: Final = 0.9  # of the free memory: the rest is for everyone else


def workers_that_fit(cells: Sequence[Cell]) -> int:
    """Workers that may run at once: one per core, as long as each has memory for the largest of the cells; at least one."""
    need = max((memory_of(cell) for cell in cells), default=WORKER_BYTES)
    return max(1, min(cores(), int(free_memory() * _SHARE) // need, len(cells)))


def memory_of(cell: Cell) -> int:
    """Bytes that a worker needs for a cell, about; more than measured."""
    settings = cell.scenario.workload.generate
    count = sum(_rows(path) for path in cell.source.options.files) if cell.source.options.files else settings.requests
    return WORKER_BYTES + int(REQUEST_BYTES * count * max(cell.source.options.load, 1.0))


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that can be had without swapping, within the limit of the control group if there is one."""
    return min(_available(), _allowed())


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass  # not Linux: what is installed must do
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _allowed() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text("ascii").strip()
        used = int((group / "memory.current").read_text("ascii"))
    except OSError:
        return 1 << 62  # no control group, no limit
    return 1 << 62 if limit == "max" else max(int(limit) - used, 0)


def _rows(path: Path) -> int:
    if path.suffix == ".parquet":
        try:
            return int(pq.ParquetFile(path).metadata.num_rows)
        except (OSError, pa.ArrowInvalid):
            return 0  # reading it says what is wrong with it
    size = path.stat().st_size if path.exists() else 0
    return size * (_SQUEEZED if path.suffix in {".gz", ".zst"} else 1) // _ROW_BYTES
