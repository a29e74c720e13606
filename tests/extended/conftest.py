"""Tests against real engines and clusters, on demand: each says what to set, and is skipped without it."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """The marker of this folder: `pytest -m extended`."""
    config.addinivalue_line("markers", "extended: against real systems, on demand; skipped unless the environment names one")
