"""The prefix cache of one instance, naively: a dictionary of blocks, each known by all hashes up to its own.

Follows docs/reference/kernel.md, "Block hashes", and nothing of the kernel: no tree, no segments, every sum counted anew.
Read next: `reference_engine.py`, which asks it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sageserve.base.records import UNSET
from sageserve.sim.kernel.prefixes.tree import Prefixes

Path = tuple[int, ...]
"""Hashes of whole blocks from the beginning of a prompt."""


def paths_of(prefixes: Prefixes, lengths: list[tuple[int, int]]) -> list[tuple[Path | None, Path]]:
    """Of each request, by prompt and output: its path (None: it is not hashed), and that with its answer."""
    size, ends = prefixes.blocks.size, prefixes.blocks.ends.tolist()
    whole: list[Path] = []
    for (prompt, _), begin, end in zip(lengths, [0, *ends[:-1]], ends, strict=True):
        whole.append(tuple(prefixes.blocks.hashes[begin : min(end, begin + prompt // size)].tolist()))
    found: list[tuple[Path | None, Path]] = []
    for row, later in enumerate(prefixes.after.tolist()):
        path, kept = whole[row], (sum(lengths[row]) - 1) // size
        goes_on = later != UNSET and whole[later][: len(path)] == path and kept > len(path)
        hashed = ends[row] > (ends[row - 1] if row else 0)
        found.append((path if hashed else None, whole[later][:kept] if goes_on else path))
    return found


@dataclass(slots=True)
class Block:
    """A block that is there."""

    users: set[int] = field(default_factory=set)  # rows of running requests
    let_go: int = 0  # when the last of them left, in order


class ReferenceCache:
    """Blocks of one instance.

    Args:
        size: tokens per block.
        counts: how often what happened.
    """

    def __init__(self, size: int, counts: Counter[str]) -> None:
        self.size = size
        self.blocks: dict[Path, Block] = {}
        self._clock = 0
        self._counts = counts

    @staticmethod
    def _ways(path: Path) -> Iterator[Path]:
        return (path[:end] for end in range(1, len(path) + 1))

    def there(self, path: Path) -> int:
        """Blocks from the beginning of a prompt that are there."""
        return next((at for at, way in enumerate(self._ways(path)) if way not in self.blocks), len(path))

    def held(self, path: Path) -> int:
        """Blocks from the beginning of a prompt that somebody uses."""
        return sum(1 for way in self._ways(path) if way in self.blocks and self.blocks[way].users)

    @property
    def used(self) -> int:
        """Tokens of blocks that somebody uses."""
        return self.size * sum(1 for block in self.blocks.values() if block.users)

    def hold(self, row: int, path: Path) -> None:
        """A request is admitted."""
        self._counts["blocks shared while used"] += self.held(path)
        for way in self._ways(path):
            self.blocks.setdefault(way, Block()).users.add(row)

    def let_go(self, row: int, path: Path, answer: Path, whole: int) -> None:
        """A request leaves: the last block first; those after the first `whole` were never finished and are gone."""
        self._counts["blocks of answers"] += len(answer) - len(path)
        for end in range(len(answer), 0, -1):
            way = answer[:end]
            if end > len(path):
                self.blocks.setdefault(way, Block())
            block = self.blocks[way]
            block.users.discard(row)
            if block.users:
                continue
            if end > whole:
                del self.blocks[way]
                self._counts["blocks never finished"] += 1
                continue
            self._clock += 1
            block.let_go = self._clock

    def shrink(self, room: int) -> None:
        """Blocks that nobody uses go, the one let go first, until all fit into so many tokens."""
        while len(self.blocks) * self.size > room:
            idle = [way for way, block in self.blocks.items() if not block.users]
            if not idle:
                return
            gone = min(idle, key=lambda way: self.blocks[way].let_go)
            assert not any(way[: len(gone)] == gone for way in self.blocks if len(way) > len(gone)), "only leaves go"
            del self.blocks[gone]
            self._counts["blocks evicted"] += 1
