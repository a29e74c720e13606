"""Sizing: the least fleet of constant size that keeps every promise, found by playing candidates, and what it costs.

Plays through `sim/sweep`; decides nothing about strategies. Read next: `run.py`, then `search.py` for the search.
"""
