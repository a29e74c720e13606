"""What blocks were made of, for those who ask: the log of a world whose `Setup.block_rows` is not 0.

Times follow from the engine model's coefficients, so a log tells what other coefficients would have made of the same
blocks. Decides nothing. Read next: `batching.py`, which composes blocks; `sim/replay.py`, which reads the log.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.sim.kernel.state import view_blocks, view_engines


@kernel
def log_block(w: Rec, i: int, tokens: int, attention: float, length: int) -> None:
    """Write down what the block that instance `i` begins is made of; only count it where the log is full."""
    row = w["block_count"]
    w["block_count"] = row + 1
    if row >= w["block_rows"]:
        return
    engine = view_engines(w["at_engines"], w["instances"])[i]
    block = view_blocks(w["at_blocks"], w["block_rows"])[row]
    block["start"] = engine["start"]
    block["steps"] = engine["steps"]
    block["tokens"] = tokens
    block["attention"] = attention
    block["kv"] = engine["kv"]
    block["running"] = engine["running"] if engine["length"] > 0 else 0
    block["length"] = length
    block["instance"] = i
