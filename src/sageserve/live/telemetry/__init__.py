"""Telemetry in: what engines say of themselves, under one name for each thing, whatever the engine calls it.

    page.py      a metrics page, read                              scrape.py  pages fetched over HTTP
    seen.py      a page turned into signals, or the reason why not

Names of metrics are in `data/history/names.py`.
An engine that is seen and does nothing is idle; one that cannot be seen is blind. They are never the same.
Read next: docs/reference/engine-metrics.md.
"""
