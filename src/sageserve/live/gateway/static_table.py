"""What is open where no control process says: the engines of `live.instances`, all of them.

Pure. Read next: `server.py`, the caller; `live/wire.py` for what a table is.
"""

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.core.layout import Layout
from sageserve.live.wire import EndpointRow, InstanceRow, RoutingTable


def static_table(scenario: Scenario, layout: Layout) -> RoutingTable:
    """A table of `live.instances`, all open; the instances of a model in a region are dealt out to its roles in turn.

    Raises:
        ConfigError: an instance does not fit the scenario, or there are more than a pool may have.
    """
    live = scenario.live or LiveSettings()
    taken: dict[int, int] = {}
    dealt: dict[tuple[str, str], int] = {}
    rows = []
    for number, one in enumerate(live.instances):
        where = f"live.instances[{number}] ({one.url})"
        if one.region not in scenario.regions or one.model not in scenario.models:
            raise ConfigError(f"{where}: {one.region}/{one.model} is not in the scenario", hint="add it, or mend its name")
        turn = dealt.get((one.region, one.model), 0)
        dealt[one.region, one.model] = turn + 1
        at = layout.names.regions.index(one.region) * len(layout.names.models) + layout.names.models.index(one.model)
        endpoint = at * len(layout.roles) + turn % len(layout.roles)
        pools = [pool for pool in layout.endpoint_pools(endpoint) if one.gpu in {None, layout.stocks[pool.stock].gpu}]
        if not pools:
            raise ConfigError(
                f"{where}: no GPU of {one.region} runs {one.model}", hint=f"give the region GPUs of models.{one.model}.engines"
            )
        pool = pools[0]
        row = pool.begin + taken.get(pool.number, 0)
        if row >= pool.end:
            raise ConfigError(f"{where}: {pool.name} has more instances than its maximum", hint="raise fleet.maximum")
        taken[pool.number] = taken.get(pool.number, 0) + 1
        rows.append(InstanceRow(row, endpoint, one.url, one.served_model, True, 0, pool.profile))
    nothing = EndpointRow(0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    return RoutingTable(
        0, "static", 0, 0, (nothing,) * layout.endpoints, tuple(rows), (), 1, "" if rows else "live.instances is empty"
    )
