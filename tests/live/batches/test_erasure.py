"""A tenant's batches, files and answers are erased, what is under way once it has ended, and nobody else's.

Read next: `src/sageserve/live/batches/erasure.py`.
"""

import asyncio

import httpx
from starlette.applications import Starlette

from sageserve.base.config import LiveSettings
from sageserve.live.batches.api_context import ApiContext
from sageserve.live.batches.erasure import Erased, erase_routes
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import Batch, File, ListRange, NewJob

ALL = ListRange(None, 100)


def test_all_of_a_tenant_is_erased_and_what_runs_once_it_has_ended() -> None:
    store, told = MemoryStore(), list[str]()
    for owner in ("ann", "bob"):
        for k in range(120 if owner == "ann" else 1):
            store.begin_file(File(f"file-{owner}-{k}", owner, "n", "batch", k, None))
            store.append(f"file-{owner}-{k}", 0, b"a prompt")
            store.finish_file(f"file-{owner}-{k}", 8)
        made = store.add_batch(Batch(f"batch-{owner}", owner, "/v1/x", f"file-{owner}-0", "24h", {}, 3600, 1, 10**15))
        store.hold(made.number, "m", [NewJob(1, "c", b"{}")])
        store.accept(made.number, "m", 2)

    async def story() -> None:
        api = ApiContext(StoreThread(store), SteadyWall(lambda: 5, lambda: 0), LiveSettings(), lambda: told.append("news"))
        asgi = httpx.ASGITransport(app=Starlette(routes=erase_routes(api)))
        async with httpx.AsyncClient(transport=asgi, base_url="http://control") as client:
            assert (await client.post("/fleet/erase", json={"name": "ann"})).status_code == 400
            first = (await client.post("/fleet/erase", json={"tenant": "ann"})).json()
            assert (first, told) == ({"files": 120, "batches": 0, "left": 1}, ["news"])
            (cancelled,) = [one for one in store.unfinished() if one.owner == "ann"]
            store.close_batch(cancelled.number, (None, None), 6)  # as the lifecycle does
            second = (await client.post("/fleet/erase", json={"tenant": "ann"})).json()
            assert Erased(**second) == Erased(0, 1, 0)
        await api.store.close()

    asyncio.run(story())
    assert (store.files("ann", ALL, None), store.batches("ann", ALL)) == ([], [])
    assert store.piece("file-ann-0", 0) is None
    assert len(store.files("bob", ALL, None)) == len(store.batches("bob", ALL)) == 1
    assert [one.owner for one in store.unfinished()] == ["bob"], "nobody else's is cancelled"
