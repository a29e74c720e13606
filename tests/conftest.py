"""What every test may ask for: reproducible generated cases, kernels from one cache, and the real traces.

Must not hold a fixture that only one folder needs. Read next: `test_tidy.py` for the rules the code keeps.
"""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The suite replays the same cases on every machine, so that a red run is red for everyone.
# To look for new ones: pytest --hypothesis-profile=explore
settings.register_profile(
    "suite",
    max_examples=50,  # keeps the suite in minutes on two cores; a law that needs more says so itself
    derandomize=True,
    deadline=None,  # the first example of a compiled function pays for its compilation
    suppress_health_check=[HealthCheck.too_slow],  # for the same reason
    print_blob=True,
)
settings.register_profile("explore", settings.get_profile("suite"), max_examples=2_000, derandomize=False)
settings.load_profile("suite")

if importlib.util.find_spec("sageserve.cli.kernels") is not None:
    # Before any test imports a compiled module: numba reads the place of its cache once, on import.
    importlib.import_module("sageserve.cli.kernels").use_cache()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real traces and measurements; tests that need it are skipped where it is absent."""
    given = os.environ.get("SAGESERVE_DATA")  # noqa: TID251  # a test run is told where its data is, as the CLI is
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real traces are not on this machine: set SAGESERVE_DATA to the folder that holds azure2023")
    return folder
