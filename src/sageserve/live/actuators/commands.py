"""Command templates of engines: which words in braces there are, and what they stand for.

A template is checked when it is loaded, not when the first instance starts at night. No shell ever sees a command.
Knows no process. Read next: `base/config/live.py` for the setting, `local.py` for its use.
"""

import json
import shutil
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sageserve.base.config import EngineCommand, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import Micros
from sageserve.data.documents import suggest
from sageserve.live.actuators.base import Post

WORDS: Final = ("port", "host", "model", "region", "gpu", "gpus", "instance", "profile")
_EMULATED: Final = (sys.executable, "-m", "sageserve.cli.main", "engine")


@dataclass(frozen=True, slots=True)
class Filled:
    """A command that can be run."""

    argv: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Given:
    """What one start adds to its post."""

    host: str
    port: int
    gpus: tuple[int, ...]
    profile: str  # path of a file that holds the profile
    delay: Micros  # loading, for the emulated engine
    speed: float  # of the emulated engine


def check_commands(scenario: Scenario) -> None:
    """Refuse templates that cannot be filled.

    Raises:
        ConfigError: an unknown word, a broken brace, no `{port}`, or a model the scenario does not have.
    """
    for model, engine in (scenario.live.engines if scenario.live else {}).items():
        where = f"live.engines.{model}"
        if model not in scenario.models:
            raise ConfigError(
                f"{where}: there is no such model{suggest(model, list(scenario.models))}",
                hint=f"models: {', '.join(scenario.models)}",
            )
        check_command(engine, where)


def check_command(engine: EngineCommand, where: str) -> None:
    """Refuse a template that cannot be filled.

    Raises:
        ConfigError: an unknown word, a broken brace, or no `{port}`.
    """
    used: set[str] = set()
    for text in (*engine.command, *engine.environment.values()):
        used |= _words(text, where)
    if "port" not in used:
        raise ConfigError(f"{where}: the command does not say {{port}}", hint="engines of one machine need different ports")


def check_program(engine: EngineCommand, where: str) -> None:
    """Refuse a command whose program is not on this machine; who starts it has the same PATH.

    Raises:
        ConfigError: it is not there.
    """
    program, path = engine.command[0], engine.environment.get("PATH")
    if _words(program, where) or (path is not None and _words(path, where)):
        return  # known when an instance starts
    program = program.format()
    if shutil.which(program, path=None if path is None else path.format()) is None:
        raise ConfigError(
            f"{where}: there is no program {program!r} that can be run here",
            hint="write its whole path, or have its folder in the PATH of `sageserve up`",
        )


def profile_file(folder: Path, post: Post) -> str:
    """A file with the profile of a post, for the emulated engine and for templates."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{post.number}.yaml"
    profile = post.profile.model_dump(mode="json", exclude_none=True)
    text = json.dumps({"profiles": {"profile": profile}}, indent=1, allow_nan=False)  # JSON is YAML
    if not path.exists() or path.read_text("utf-8") != text:
        new = path.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(path)
    return str(path)


def fill(post: Post, given: Given) -> Filled:
    """The command of one instance; the emulated engine when its model has none."""
    if post.command is None:
        return Filled(_emulated(post, given), {})
    words = {
        "port": str(given.port),
        "host": given.host,
        "model": post.model,
        "region": post.region,
        "gpu": post.gpu,
        "gpus": ",".join(map(str, given.gpus)),
        "instance": str(post.row),
        "profile": given.profile,
    }
    argv = tuple(part.format_map(words) for part in post.command.command)
    return Filled(argv, {name: text.format_map(words) for name, text in post.command.environment.items()})


def served_model(post: Post) -> str:
    """The name the engine knows the model by."""
    return post.command.served_model or post.model if post.command else post.model


def _emulated(post: Post, given: Given) -> tuple[str, ...]:
    options = {
        "--profile": given.profile,
        "--model": post.model,
        "--host": given.host,
        "--port": str(given.port),
        "--speed": f"{given.speed:g}",
        "--region": post.region,
        "--context": str(post.context),
        "--prefix-hits": f"{post.hits:g}",
        "--start-delay": f"{given.delay}us",
    }
    return (*_EMULATED, *(word for pair in options.items() for word in pair))


def _words(text: str, where: str) -> set[str]:
    found = set()
    try:
        for _, word, form, conversion in string.Formatter().parse(text):
            if word is None:
                continue
            if word not in WORDS or form or conversion:
                raise ConfigError(
                    f"{where}: {text!r} has an unknown word {{{word}}}{suggest(word, WORDS)}",
                    hint=f"words: {', '.join(f'{{{one}}}' for one in WORDS)}; a brace itself is written twice",
                )
            found.add(word)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r}: {error}", hint="a brace itself is written twice: {{ and }}") from None
    return found
