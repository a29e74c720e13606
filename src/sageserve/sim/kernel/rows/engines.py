"""A row per rank of an engine: its batch in sums, and its current block. Read next: `sim/kernel/batching.py`."""

from typing import Final

import numpy as np

ENGINE: Final = np.dtype(
    [  # a row per rank: first ranks by instance, then the other ranks of each; an instance is the row of its first rank
        ("start", "i8"),  # when the current block began
        ("first", "f8"),  # us of its first iteration
        ("step", "f8"),  # us each further iteration takes more
        ("steps", "i8"),  # decode steps made since it was opened
        ("kv", "i8"),  # KV tokens of decoding sequences, at the block's start
        ("used", "i8"),  # kv + tokens reserved for prompts
        ("promised", "i8"),  # tokens that the requests inside will still take
        ("given", "i8"),  # KV tokens ever given to requests here
        ("lost_given", "i8"),  # `given` when the latest preempted request lost its place
        ("unfilled", "i8"),  # of the instance: tokens to compute for prompts placed there that are not done
        ("running", "i4"),  # decoding sequences
        ("heap", "i4"),  # entries in the finish heap, stale ones included
        ("length", "i4"),  # decode steps in the current block
        ("phase", "i1"),
        ("cut", "i1"),  # the block was cut
        ("draining", "i1"),
        ("lockstep", "i1"),  # its ranks begin and end iterations together, and the instance's row says when
        ("batch", "i4"),  # first request of the prefill batch
        ("partial", "i4"),  # partly prefilled prompt
        ("filled", "i4"),  # tokens of it that are prefilled or were cached
        ("latest", "i4"),  # latest admitted decoding request
        ("waiting", "i4"),
        ("in_flight", "i4"),  # of the instance, in its row: requests placed there and not finished; of the rank in the other rows
        ("endpoint", "i4"),
        ("model", "i4"),
        ("profile", "i4"),
        ("lost", "i4"),  # latest preempted request
        ("lost_tokens", "i4"),  # KV tokens it had computed
        ("head", "i4"),  # the row of the instance, which is that of its first rank
        ("others", "i4"),  # the row of its second rank; the rest follow
        ("ranks", "i4"),
        ("iterations", "i4"),  # of the current block, if ranks keep in step
        ("tokens", "i4"),  # of prompts in each of them
    ],
    align=True,
)

OF_INSTANCES: Final = ("unfilled", "in_flight")
"""Columns of ENGINE whose first rows count for all ranks of an instance."""
