"""Columns of the fleet that per-request decisions read: one row per endpoint.

The gateway and the simulator's kernel write what they count, the scrape writes what was seen; policies only read.
Read next: `fleet.py` for life cycles and stock, `route.py` and `feed.py` for the readers.
"""

from typing import Final

import numpy as np

ENDPOINT: Final = np.dtype(
    [
        ("seen", "f8"),  # utilisation by the chosen signal at the last scrape
        ("kv", "f8"),
        ("busy", "f8"),
        ("rate", "f8"),  # offered engine time per time, smoothed
        ("offered", "f8"),  # us of engine time offered since the last scrape
        ("backlog", "f8"),  # us of prefill not finished
        ("fed_work", "f8"),  # us of engine time fed since the last scrape
        ("fed_tokens", "f8"),
        ("one_below", "f8"),  # batch feed: utilisation below which one job is given
        ("two_below", "f8"),
        ("kv_tokens", "i8"),  # capacity of open instances
        ("finished", "i8"),
        ("preempted", "i8"),
        ("made", "i8"),  # output tokens of finished requests
        ("placed", "i8"),  # requests placed
        ("sequences", "i8"),  # that open instances can run together
        ("open", "i4"),
        ("running", "i4"),  # in open instances at the last scrape, as engines count them
        ("waiting", "i4"),
        ("model", "i4"),
        ("feeds", "i4"),  # serves batch work from the queue
    ],
    align=True,
)
