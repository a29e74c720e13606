"""Requests that come from an instance: it was done with them, or it is gone. Read next: `landing.py`, `losing.py`."""
