"""Coefficients of the engine model from measurements, and how wrong they are.

`logs.py` fits requests with the simulator in the loop, `counters.py` fits what a scrape sees, `validation.py` holds both
against what they did not see. Knows arrays and profiles, no files and no network. Read next: docs/reference/engine-model.md.
"""
