"""Engines that a server records become rows of the fleet: new ones serve, ones that are gone are lost, unseen ones stay.

An instance that has no sample for longer than signals are believed is gone if the server does not list it as a target any more,
and only unseen if it does. A pool of which nothing at all is recorded is unseen, not empty. Rows are kept in a file, so that the
journal means the same engine by them after a restart. Asks nobody. Read next: `looks.py`, `process.py`.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sageserve.base.units import Micros
from sageserve.core.fleet import Fleet, Pool, State
from sageserve.live.private import write_private

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What a look changed: rows that are new, and rows that are gone, with the instances' names."""

    new: tuple[tuple[int, str], ...]
    gone: tuple[tuple[int, str], ...]


class WatchedInstances:
    """Rows by name of the instance.

    Args:
        fleet: whose rows they are.
        path: where they are kept.
    """

    def __init__(self, fleet: Fleet, path: Path) -> None:
        self._fleet = fleet
        self._path = path
        self._rows: dict[str, dict[str, int]] = {pool.name: {} for pool in fleet.pools}
        self._before = _load(path)
        self.unplaced: dict[str, tuple[int, int]] = {}  # by pool: how many have no row, and how many rows or GPUs there are

    def rows(self, pool: str) -> Mapping[str, int]:
        """Rows of a pool by name of the instance."""
        return self._rows[pool]

    def left(self) -> Iterator[tuple[int, str]]:
        """Rows that an earlier process left taken by instances which nobody has seen since it ended, once all were looked for."""
        taken = {row for rows in self._rows.values() for row in rows.values()}
        for pool, rows in self._before.items():
            here = self._rows.get(pool, {})
            yield from ((row, name) for name, row in rows.items() if name not in here and row not in taken)
        self._before = {}

    def update(self, pool: Pool, ages: Mapping[str, Micros], limit: Micros, failing: Collection[str] | None) -> PoolChange:
        """Take in whom a look showed.

        Args:
            pool: whose instances they are.
            ages: microseconds since each instance's newest sample.
            limit: age beyond which a sample says nothing of now.
            failing: targets that cannot be scraped; None: not known, so nobody is gone.
        """
        rows = self._rows[pool.name]
        fresh = [name for name, age in ages.items() if age <= limit]
        missing = [name for name in rows if name not in fresh]
        gone = [name for name in missing if failing is not None and name not in failing] if fresh else []
        lost = tuple((rows.pop(name), name) for name in gone)
        new, unplaced = [], 0
        for name in sorted(name for name in fresh if name not in rows):
            row = self._free(pool, name, {row for row, _ in lost})
            if row is None:
                unplaced += 1
                continue
            rows[name] = row
            new.append((row, name))
        self._note_unplaced(pool, unplaced)
        if new or lost:
            self._save()
        return PoolChange(tuple(new), lost)

    def follow(self, pool: Pool, names: Sequence[str], room: int) -> list[tuple[int, str]]:
        """Give rows to those of a pool's instances that have none: which are new.

        Args:
            pool: whose instances they are.
            names: of all that should have a row, the most important ones first.
            room: for how many more there are GPUs.
        """
        rows = self._rows[pool.name]
        new: list[tuple[int, str]] = []
        unplaced = 0
        for name in (name for name in names if name not in rows):
            row = self._free(pool, name, ()) if len(new) < room else None
            if row is None:
                unplaced += 1
                continue
            rows[name] = row
            new.append((row, name))
        self._note_unplaced(pool, unplaced)
        if new:
            self._save()
        return new

    def close(self, pool: Pool, name: str) -> None:
        """An instance has no row any more."""
        del self._rows[pool.name][name]
        self._save()

    def _free(self, pool: Pool, name: str, leaving: Collection[int]) -> int | None:
        """The row an instance had before, else the first that nobody has."""
        taken = {*self._rows[pool.name].values(), *leaving}
        had = self._before.get(pool.name, {})
        if (row := had.get(name, -1)) in range(pool.begin, pool.end) and row not in taken and self._fleet.state[row] is State.OFF:
            return row
        own = set(had.values())  # of others, which may be seen at the next look
        free = [i for i in self._fleet.rows(pool.number, State.OFF) if i not in taken]
        return next((i for i in free if i not in own), free[0] if free else None)

    def _note_unplaced(self, pool: Pool, count: int) -> None:
        if count:
            self.unplaced[pool.name] = count, len(self._rows[pool.name])
        else:
            self.unplaced.pop(pool.name, None)

    def forget(self, pool: Pool, row: int) -> None:
        """A row could not be taken: there are no GPUs for it in the settings."""
        rows = self._rows[pool.name]
        for name in [name for name, taken in rows.items() if taken == row]:
            del rows[name]
        count, _ = self.unplaced.get(pool.name, (0, 0))
        self._note_unplaced(pool, count + 1)

    def _save(self) -> None:
        try:
            write_private(self._path, msgspec.json.encode(self._rows))
        except OSError as error:
            _LOG.error("which row is whose cannot be written: %s", error)


def _load(path: Path) -> dict[str, dict[str, int]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, int]])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        _LOG.warning("which row was whose is forgotten, because %s cannot be read: %s", path, error)
        return {}
