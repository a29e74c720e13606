"""Workload: requests without a file, drawn from a scenario's traffic settings.

Must not read traces. Read next: `generate.py`, then `rates.py` for the shapes behind it.
"""
