"""Alerts as Prometheus reads them: promises that burn their budget, fleets that are not seen. Read next: `rules.py`."""
