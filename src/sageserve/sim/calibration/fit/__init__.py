"""The search of `calibration/logs.py`, in parts that know no model: equations, a way down, first values, and what is told.

A replay says which blocks a request waited for; times are sums over blocks, so each replay gives equations for the
coefficients. Read next: `equations.py`, `descent.py`.
"""
