"""One JSON line per figure, the peak memory of a process, and the cache of kernels.

Measures nothing itself. Must be imported before any module with a kernel. Read next: `run.py`.
"""

import json
import resource
import sys
from pathlib import Path

from sageserve.cli.kernels import use_cache

use_cache()


def show(name: str, value: float, unit: str) -> None:
    """Print a figure with four significant digits."""
    print(json.dumps({"name": name, "value": float(f"{value:.4g}"), "unit": unit}), flush=True)


def peak_gb() -> float:
    """Highest resident memory of this process so far, in GB; what its parent used is not counted."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
