"""Measured: runs of real engines as files, and what validating a simulated engine against them found.

Must not simulate. Read next: `runs.py` for what a run is, `files.py` for the folder it is kept in.
"""
