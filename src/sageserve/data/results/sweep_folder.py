"""The folder a sweep keeps its results in, so that what is finished is not simulated again.

    SWEEP                              marks the folder as ours
    <cell>-<key>/scenario.yaml         the resolved scenario of the cell
    <cell>-<key>/summary.json          as of a run; the first seed of a strategy has the other files of a run too
    <cell>-<key>/bound.json            instead of it: the least that any strategy could do
    frontier.json                      of `compare --frontier`: its points, and which cells have the settings as given
    report.html                        all of it to look at

The key is a hash of the resolved scenario, of where its requests come from, and of the code that plays it, strategies of users
included: a result is only taken up when all of them are the same. Each file is put in place at once. Knows no simulator.
Read next: `run_folder.py` for the folder of one run, `sim/sweep/run.py`.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError, TraceError
from sageserve.base.version import __version__
from sageserve.data.own_code import own_code
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.data.traces.options import TraceOptions

MARK: Final = "SWEEP"
PACKAGE: Final = Path(__file__).resolve().parents[2]
_LAYERS: Final = ("base", "core", "data", "sim")  # what a result depends on
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")
_DIGITS: Final = 16  # of the key: 64 bits


@dataclass(frozen=True, slots=True)
class SweepSource:
    """Where the requests of a sweep come from.

    Args:
        options: trace files and what is done to them; none: the scenario's generator.
        content: hash of the content of the files.
    """

    options: TraceOptions = field(default_factory=TraceOptions)
    content: str = ""


GENERATED: Final = SweepSource()
"""Requests drawn from the scenario's own settings."""


def source_of(options: TraceOptions) -> SweepSource:
    """A source whose files are known by their content.

    Raises:
        TraceError: a file that cannot be read, or options that speak of one where there is none.
    """
    options.refuse_without_files()
    digest = hashlib.sha256()
    for path in (*options.files, *options.history):
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise TraceError(f"cannot read {path}: {error.strerror}", hint="give the path of a trace file") from None
    files, history = (tuple(path.resolve() for path in paths) for paths in (options.files, options.history))
    return SweepSource(replace(options, files=files, history=history), digest.hexdigest() if files else "")


@cache  # of the code as this process began with it
def code_digest() -> str:
    """Hash of the version and of every source file that a result depends on."""
    digest = hashlib.sha256(__version__.encode())
    for layer in _LAYERS:
        for path in sorted((PACKAGE / layer).rglob("*")):
            if path.suffix in {".py", ".yaml"}:
                digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(scenario: Scenario, source: SweepSource, code: str) -> str:
    """The name of a result: equal keys give equal results."""
    digest = hashlib.sha256()
    own = "".join(f"{name}={found}" for name, found in own_code(scenario).items())
    for part in (
        code,
        resolved_yaml(scenario),
        repr(replace(source.options, files=(), history=(Path(),) * len(source.options.history))),
        source.content,
        own,
    ):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:_DIGITS]


def cell_name(strategy: str, seed: int) -> str:
    """What the cell of a strategy as it is given is called; those with settings of a question's own have other names."""
    return f"{strategy}-seed{seed}"


class Kept:
    """Results of earlier sweeps in a folder.

    Args:
        folder: made when the first result is kept.
        replace: also into a folder that holds other files.

    Raises:
        ResultError: it is a file, or holds files that are not of a sweep.
    """

    def __init__(self, folder: Path, *, replace: bool = False) -> None:
        if folder.exists() and not folder.is_dir():
            raise ResultError(f"{folder} is a file, not a folder", hint="name another folder with --out")
        if folder.is_dir() and not (folder / MARK).exists() and any(folder.iterdir()) and not replace:
            raise ResultError(
                f"{folder} holds files that are not of a sweep", hint="name an empty or a new folder, or add --replace"
            )
        self.folder = folder

    def find(self, name: str, key: str, file: str) -> bytes | None:
        """The kept result of a cell; None when there is none."""
        try:
            return (self.place(name, key) / file).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, name: str, key: str, file: str, content: bytes) -> None:
        """Write the result of a cell, whole or not at all.

        Raises:
            ResultError: writing failed.
        """
        place = self.place(name, key)
        part = place / f".{file}.part-{os.getpid()}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            (self.folder / MARK).touch()
            part.write_bytes(content)
            part.replace(place / file)
        except OSError as error:
            raise ResultError(f"{place} cannot be written: {error.strerror or error}", hint="choose another place") from None

    def put(self, file: str, content: bytes | None) -> None:
        """Write a file about all of it, whole or not at all; None: there is to be none.

        Raises:
            ResultError: writing failed.
        """
        place = self.folder / file
        part = self.folder / f".{file}.part-{os.getpid()}"
        try:
            if content is None:
                place.unlink(missing_ok=True)
            else:
                part.write_bytes(content)
                part.replace(place)
        except OSError as error:
            raise ResultError(f"{place} cannot be written: {error.strerror or error}", hint="choose another place") from None

    def place(self, name: str, key: str) -> Path:
        """The folder of a cell."""
        return self.folder / f"{_safe(name)}-{key}"


def is_as_given(place: Path, scenario: Scenario) -> bool:
    """Whether the cell of this folder and scenario is its strategy as it was given, and no variant of it."""
    return place.name.rpartition("-")[0] == _safe(cell_name(scenario.strategy.name, scenario.seed))


def _safe(name: str) -> str:
    return _ODD.sub("_", name)
