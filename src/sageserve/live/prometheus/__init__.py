"""Prometheus, asked: raw samples of weeks, and a look at now.

    server.py       one server: TLS, tokens, limits, redirects; answers or one sentence
    queries.py      PromQL of what is asked                sight.py     what a look shows: idle, partial or blind
    read.py         weeks, chunk by chunk                  discover.py  engines, models and gateways that it knows
    calibration.py  counters of one engine, as a measured series

Asks only, never writes. Read next: docs/reference/prometheus.md.
"""
