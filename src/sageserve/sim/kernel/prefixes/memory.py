"""Memory of the prefix caches of a simulated world: as much as the instances' KV memory can hold of the blocks there are.

Pages that no node ever lies on are never touched, so a large fleet costs what it uses. Decides nothing. Read next:
`tree.py` for the tree, `sim/kernel/prefix_cache.py` for what is done with this.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.sim.kernel.prefixes.tree import PREFIX, SEGMENT, UNHASHED, Prefixes, grow

NODE: Final = np.dtype(
    [
        ("segment", "i4"),
        ("instance", "i4"),
        ("parent", "i4"),  # node of the segment before it; -1: it begins prompts
        ("users", "i4"),  # running requests that end in it, and nodes after it that are used
        ("resident", "i4"),  # blocks of it that are there, from its beginning; all when it is used
        ("sooner", "i4"),  # while idle: the node that goes before it
        ("later", "i4"),
        ("chain", "i4"),  # next node of the same bucket, or of those that are free
    ],
    align=True,
)
"""A segment at an instance: half a cache line."""

CACHE: Final = np.dtype(
    [
        ("idle", "i8"),  # tokens of blocks that are there and not used
        ("first", "i4"),  # idle node that goes first
        ("last", "i4"),
    ],
    align=True,
)


class PrefixMemory:
    """Sizes and arrays of a world's prefix caches; next to nothing where no prompt is hashed.

    Args:
        kv_tokens: int[instances], tokens each can hold; those of slots that are never used may say anything.
        requests: REQUEST rows; requests that find nothing because of hashes say so afterwards (`cached` is 0).
        prefixes: their hashes; None: there are none.
        caches: whether engines of a model have a prefix cache; empty: all do.
    """

    def __init__(
        self,
        kv_tokens: NDArray[Any],
        requests: NDArray[Any],
        prefixes: Prefixes | None,
        caches: tuple[bool, ...],
    ) -> None:
        self.sizes = {"caches": 0, "block_tokens": 1, "node_free": -1}
        self.arrays: dict[str, NDArray[Any]] = {
            "prefixes": np.zeros(1, PREFIX),
            "segments": np.zeros(1, SEGMENT),
            "nodes": np.zeros(1, NODE),
            "buckets": np.zeros(1, np.int32),
            "caches": np.zeros(1, CACHE),
        }
        if prefixes is None:
            return
        tree = grow(prefixes, requests["prompt"], requests["output"])
        without = np.zeros(len(requests), np.bool_) if not caches else ~np.array(caches)[requests["model"]]
        nothing = without & (tree.rows["leaf"] != UNHASHED)
        requests["cached"][nothing] = 0
        tree.rows["leaf"][nothing] = UNHASHED
        size = prefixes.blocks.size
        # what is there never exceeds the memory but while one request is admitted, whose own segments come on top
        each = np.minimum(kv_tokens.astype(np.int64) // size, len(tree.segments)) + tree.deepest
        nodes = int(each.sum()) + 1
        every = np.zeros(len(kv_tokens), CACHE)
        every["first"] = every["last"] = -1
        self.arrays = {
            "prefixes": tree.rows,
            "segments": tree.segments if len(tree.segments) else np.zeros(1, SEGMENT),
            "nodes": np.zeros(nodes, NODE),
            "buckets": np.zeros(1 << max(4, min(nodes, 8 * len(tree.segments)).bit_length()), np.int32),
            "caches": every,
        }
        self.sizes |= {
            "caches": 1,
            "block_tokens": size,
            "segment_count": len(self.arrays["segments"]),
            "node_rows": nodes,
            "bucket_count": len(self.arrays["buckets"]),
        }
