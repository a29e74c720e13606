"""Sweeps: many simulations, each played once, on the cores of this machine or on a cluster.

Must not know how a run is played: `cell.py` asks for that. Read next: `run.py`.
"""
