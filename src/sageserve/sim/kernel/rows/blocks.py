"""A row of the block log, of which `sim/replay.py` tells what iterations were made of. Read next: `sim/kernel/bookkeeping.py`."""

from typing import Final

import numpy as np

BLOCK: Final = np.dtype(
    [
        ("start", "i8"),  # when the block began
        ("steps", "i8"),  # decode steps the instance had made before it
        ("tokens", "i8"),  # prompt tokens of each of its iterations
        ("attention", "f8"),  # attention sum of its first iteration
        ("kv", "i8"),  # KV tokens of decoding sequences, at its start
        ("running", "i4"),  # sequences that decode in it
        ("length", "i4"),  # iterations, as planned; an arrival may cut a block of decoding sequences, and then `steps` tell
        ("instance", "i4"),
        ("spare", "i4"),
    ],
    align=True,
)
"""A row of the block log: what a block is made of, so that its time can be told for other coefficients."""
