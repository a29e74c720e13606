"""Recorded metrics in: raw series from Prometheus' answers and from files become what a pool did, interval by interval.

    names.py        the alias table: canonical signal -> engine, metric, versions; and the gateways in front of engines
    raw.py          one raw series, and whose it is: pods, ranks, copies
    matrix.py       Prometheus' JSON, as it streams in            openmetrics.py  OpenMetrics text
    files.py        both, from files                              counters.py     growth of counters: resets, holes, grids
    records.py      what comes out                                collect.py      raw series, chunk by chunk, to records

Read next: docs/reference/engine-metrics.md, docs/reference/prometheus.md.
"""
