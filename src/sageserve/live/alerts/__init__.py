"""What Prometheus and Grafana are told of a fleet: promises that burn their budget, demand beside capacity, what is not seen.

Read next: `rules.py` for alerts; `boards.py`, `grafana.py` for dashboards.
"""
