"""Telemetry in: what engines say of themselves, under one name for each thing, whatever the engine calls it.

    names.py     the alias table: canonical signal -> engine, metric, versions     page.py    a metrics page, read
    seen.py      a page turned into signals, or the reason why not                 scrape.py  pages fetched over HTTP

An engine that is seen and does nothing is idle; one that cannot be seen is blind. They are never the same.
Read next: docs/reference/engine-metrics.md.
"""
