"""Tests against real engines and clusters, on demand: each says what to set, and is skipped without it."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.extended.vllm_server import vllm


def pytest_configure(config: pytest.Config) -> None:
    """The marker of this folder: `pytest -m extended`."""
    config.addinivalue_line("markers", "extended: against real systems, on demand; skipped unless the environment names one")


def given(variable: str) -> str | None:
    """What the caller of a test run says it may use."""
    return os.environ.get(variable)  # noqa: TID251  # a test run is told what to test against


@pytest.fixture(scope="session")
def aiperf() -> str:
    """A load client that is somebody else's."""
    program = given("SAGESERVE_AIPERF")
    if not program:
        pytest.skip("set SAGESERVE_AIPERF to an aiperf program (pip install aiperf, in an environment of its own)")
    return program


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real vLLM that serves `tiny`: one that runs, or one that is started here."""
    if running := given("SAGESERVE_VLLM_URL"):
        yield running
        return
    program = given("SAGESERVE_VLLM")
    if not program:
        pytest.skip("set SAGESERVE_VLLM to a vllm program, or SAGESERVE_VLLM_URL to one that serves the model `tiny`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with vllm(program, tmp_path_factory.mktemp("vllm"), port) as url:
        yield url
