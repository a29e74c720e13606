"""A KV cache has come across: the request goes to an instance of its endpoint that decodes.

The instance is chosen as any other, by `sim/kernel/choices/instances.py`, of those that are open in the same region. Read next:
`sim/kernel/apart/sending.py`.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.sim.kernel.apart.sending import take_landed
from sageserve.sim.kernel.arrive import join_queue
from sageserve.sim.kernel.bookkeeping import expected_work
from sageserve.sim.kernel.choices.instances import choose_instance
from sageserve.sim.kernel.queues import set_time
from sageserve.sim.kernel.state import view_endpoints, view_engines


@kernel
def land(w: Rec, u: int, now: int) -> None:
    """What rank `u` has sent first is there: it waits where it is decoded, or, with nothing open there, for the next scrape."""
    e = view_engines(w["at_engines"], w["units"])[u]["endpoint"] + 1
    if view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]["open"] == 0:
        set_time(w, w["units"] + u, w["next_scrape"])
        return
    q = take_landed(w, u, now)
    i = choose_instance(w, e, q)
    join_queue(w, i, q, now, expected_work(w, i, q))
