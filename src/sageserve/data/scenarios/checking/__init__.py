"""Checks of a part of a scenario each, that `data/scenarios/checks.py` asks. Read next: `clusters.py`, `apart.py`."""
