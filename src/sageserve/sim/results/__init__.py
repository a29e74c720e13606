"""What is made of a finished run: latencies, attainment, GPU-hours, money, and the columns of result files.

Writes nothing: `data/results/` does. Read next: `summary.py`, docs/reference/summary.md.
"""
