"""Autoscalers as Kubernetes has them, read from their manifests into the settings that simulations play.

    read.py      a file: its HorizontalPodAutoscalers and ScaledObjects become settings, or are refused by name
    metrics.py   queries and metric names to signals of engines

Read next: docs/how-to/backtest.md, `core/strategies/hpa.py`.
"""
