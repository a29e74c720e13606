"""Words a shell may complete: scenarios, strategies, profiles. `sageserve --install-completion` teaches the shell to ask.

Imports what it needs when it is asked. Read next: `main.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer


def scenarios(incomplete: str) -> Iterator[str]:
    """Built-in scenarios, and YAML files where the word leads."""
    from sageserve.data.scenarios.layers import builtin_names

    yield from (name for name in builtin_names() if name.startswith(incomplete))
    folder = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    if folder.is_dir():
        shown = (str(path) for path in sorted(folder.iterdir()) if path.suffix in {".yaml", ".yml"})
        yield from (path for path in shown if path.startswith(incomplete))


def strategies(incomplete: str) -> Iterator[str]:
    """Strategies, also the last of several with commas between; those that packages register, too."""
    from sageserve.core.plugins import STRATEGY, registered
    from sageserve.core.strategies import STRATEGIES

    before, comma, last = incomplete.rpartition(",")
    yield from (f"{before}{comma}{name}" for name in (*STRATEGIES, *registered(STRATEGY)) if name.startswith(last))


def profiles(incomplete: str) -> Iterator[str]:
    """Names of engine profiles, a part at a time: model, GPU, parallelism."""
    from sageserve.data.profiles.hardware import gpu_names, model_names
    from sageserve.data.profiles.library import library

    parts = incomplete.split("/")
    if len(parts) == 1:
        yield from (f"{name}/" for name in model_names() if name.startswith(incomplete))
    elif len(parts) == 2 and parts[0] in model_names():
        yield from (f"{parts[0]}/{gpu}/" for gpu in gpu_names() if gpu.startswith(parts[1]))
    elif len(parts) == 3 and parts[0] in model_names() and parts[1] in gpu_names():
        yield from (one.name for one in library(parts[0], parts[1]) if one.name.startswith(incomplete))


SCENARIO: Final = typer.Argument(metavar="SCENARIO", help="a built-in name or a YAML file", autocompletion=scenarios)
NAME_OR_FILE: Final = typer.Argument(metavar="NAME_OR_FILE", help="a built-in name or a YAML file", autocompletion=scenarios)
PROFILE: Final = typer.Argument(metavar="NAME_OR_FILE", help="model/gpu/tpN, or file.yaml#name", autocompletion=profiles)
PROFILES: Final = typer.Argument(metavar="NAME_OR_FILE...", help="two to four profiles", autocompletion=profiles)
