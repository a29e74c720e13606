"""The active benchmark: some minutes of known load against a live engine, measured as its clients would.

`client.py` measures one request, `shape.py` finds out how the engine wants to be asked, `prompts.py` makes prompts of known
length, `watch.py` reads the engine's own counters, `plan.py` says what is sent when, `load.py` and `run.py` send it,
`outcome.py` makes measured runs of it. Fits nothing. Read next: `run.py`; docs/reference/latency.md for what is measured.
"""
