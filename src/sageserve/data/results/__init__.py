"""Results: the folders that runs and sweeps leave behind, their records, and comparisons over them.

Computes nothing of a run itself; `sim/results/` does. Read next: `run_folder.py`, `summary.py`, docs/reference/summary.md.
"""
