"""Measured points of engines that prefill in one pool and decode in another, as their notes say: how they are split, and played.

    disagg: prefill 1x(tp1,dp8) decode 3x(tp8,dp1,ep8)     one instance of eight ranks prefills, three of eight GPUs decode

How fast KV caches go from one to the other is in no table: every GPU that prefills is taken to have a link of its own. Read next:
`predict.py`; docs/how-to/validate-and-calibrate.md.
"""

import re
from dataclasses import dataclass
from typing import Final

from sageserve.base.units import SECOND
from sageserve.data.measured.points import MeasuredPoint
from sageserve.data.profiles.roofline import Parallelism

LINK: Final = 50e9  # bytes per second and GPU: 400 Gbit/s, as servers of H100 have; 12 ms for 8,192 tokens of DeepSeek-R1
_SPLIT: Final = re.compile(r"disagg: prefill (\d+)x\(tp(\d+),dp(\d+)\) decode (\d+)x\(tp(\d+),dp(\d+),ep(\d+)\)")


@dataclass(frozen=True, slots=True)
class PointPools:
    """How many instances prefill and decode, and how each is spread over its GPUs."""

    prefills: int
    prefill: Parallelism
    decodes: int
    decode: Parallelism

    def link(self) -> float:
        """Bytes per second that an instance that prefills can send."""
        return LINK * self.prefill.tp * self.prefill.dp

    def token_us(self, kv_bytes: int) -> float:
        """Microseconds that the KV cache of a token takes on the way, stored once."""
        return kv_bytes / self.link() * SECOND


def pools_of(point: MeasuredPoint) -> PointPools | None:
    """The two pools of a point, by its note; None where it does not say how many instances they have.

    Where ranks prefill side by side they share out the experts, as those that decode.
    """
    found = _SPLIT.search(point.note)
    if found is None:
        return None
    prefills, tp, dp, decodes, decode_tp, decode_dp, ep = map(int, found.groups())
    if 0 in (prefills, tp, dp, decodes, decode_tp, decode_dp, ep):
        return None
    prefill = Parallelism(tp) if dp == 1 else Parallelism(tp, dp, tp * dp)
    decode = Parallelism(decode_tp) if decode_dp == 1 else Parallelism(decode_tp, decode_dp, ep)
    return PointPools(prefills, prefill, decodes, decode)
