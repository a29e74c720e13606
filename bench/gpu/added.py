"""What adapters add to steps, as numbers of a formula: read from `adapters.csv`, anywhere. Read next: `adapters.py`."""

import csv
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

_TERMS: Final = ("on", "a token", "any", "any, with a prompt", "each further")


def report(path: Path) -> int:
    """Print, per rank, what is added to a step: with adapters switched on, per token, if any is in it, per further one."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{name: int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    without = {(row["decoding"], row["prompt"]): row["time"] for row in rows if not row["rank"]}
    print("microseconds that adapters add to a step")
    print(f"{'rank':>4}{'steps':>7}" + "".join(f"{name:>20}" for name in _TERMS) + f"{'off, rms':>10}")
    for rank in sorted({row["rank"] for row in rows} - {0}):
        mine = [row for row in rows if row["rank"] == rank]
        added = np.array([row["time"] - without[row["decoding"], row["prompt"]] for row in mine], float)
        table = np.array([_parts(row) for row in mine])
        found, left = nnls(table, added)
        cells = "".join(f"{one:20.1f}" for one in found)
        print(f"{rank:4}{len(mine):7}{cells}{left / len(mine) ** 0.5:10.0f}")
    return 0


def _parts(row: dict[str, Any]) -> tuple[float, ...]:
    has = row["different"] > 0
    return (
        1.0,
        float(row["decoding"] + row["prompt"]),
        float(has),
        float(has and row["prompt"] > 0),
        max(row["different"] - 1.0, 0.0),
    )
