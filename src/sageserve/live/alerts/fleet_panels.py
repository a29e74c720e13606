"""Figures of a fleet, from what a process that controls or watches exports. Read next: `boards.py`, `live/control/admin.py`."""

from sageserve.live.alerts.figures import Panel, Query, Section


def _ends(metric: str, by: str = "region, model") -> str:
    return f'max by ({by}) ({metric}{{region=~"$region",model=~"$model"}})'


def capacity() -> Section:
    """Whether what serves is enough for what is asked."""
    where = "{{region}}/{{model}}"
    lines = tuple(Query(_ends(f"sageserve_{one}_instances"), f"{where} {one}") for one in ("busy", "needed", "serving"))
    short = f"clamp_min({_ends('sageserve_needed_instances')} - {_ends('sageserve_serving_instances')}, 0)"
    return Section(
        "Demand beside capacity",
        (
            Panel(
                "Demand and capacity",
                "In instances of the model's fastest GPU type: what demand keeps busy, the fewest to keep promises, what serves.",
                "none",
                lines,
                width=16,
            ),
            Panel(
                "Instances missing",
                "Needed less serving: promises are expected to break.",
                "none",
                (Query(short, where),),
                width=8,
            ),
        ),
    )


def instances() -> Section:
    """What runs, and what decisions ask for."""
    wanted = "max by (pool) (sageserve_wanted_instances)"
    serving = 'max by (pool) (sageserve_instances{state="serving"})'
    load = _ends("sageserve_utilisation", "region, model, signal")
    return Section(
        "Instances",
        (
            Panel(
                "Wanted and serving",
                "By pool: what decisions ask for, and what serves. Apart while instances start, or where only watched.",
                "none",
                (Query(wanted, "{{pool}} wanted"), Query(serving, "{{pool}} serving")),
                width=8,
            ),
            Panel(
                "By state",
                "All pools.",
                "none",
                (Query("sum by (state) (sageserve_instances)", "{{state}}"),),
                width=4,
                stacked=True,
            ),
            Panel(
                "Utilisation",
                "As last seen; load is what decisions look at.",
                "percentunit",
                (Query(load, "{{region}}/{{model}} {{signal}}"),),
                width=8,
            ),
            Panel("GPUs held", "By all instances.", "none", (Query("max(sageserve_gpus_held)", "GPUs"),), width=4),
        ),
    )


def decisions() -> Section:
    """What is decided, why, and what keeps it from being done."""
    made = "sum by (reason, blocked) (increase(sageserve_decisions_total[1h]))"
    return Section(
        "Decisions",
        (
            Panel(
                "Decisions an hour",
                "By reason, and by what kept them from being done; `not`: nothing did, `shadow`: only written down.",
                "none",
                (Query(made, "{{reason}} ({{blocked}})"),),
                width=16,
                stacked=True,
            ),
            Panel(
                "Asked for beyond all there is",
                "Share of the endpoint's capacity; and instances that hung and were ended, an hour.",
                "percentunit",
                (
                    Query(_ends("sageserve_pressure"), "{{region}}/{{model}}"),
                    Query("increase(sageserve_instances_hung_total[1h])", "hung"),
                ),
                width=8,
            ),
        ),
    )


def batch() -> Section:
    """What waits, and how long it may."""
    waiting, slack = (f'max by (model) (sageserve_batch_{one}{{model=~"$model"}})' for one in ("waiting", "slack_seconds"))
    return Section(
        "Batch work against deadlines",
        (
            Panel("Waiting", "Jobs and flex requests, by model.", "none", (Query(waiting, "{{model}}"),)),
            Panel(
                "Time to the first deadline",
                "Of what waits and may begin now; below 0 it has passed. No line: nothing waits.",
                "s",
                (Query(slack, "{{model}}"),),
                marks=((None, "red"), (0.0, "orange"), (3600.0, "green")),
            ),
        ),
    )


def sight(*, ours: bool) -> Section:
    """What is not seen."""
    heard = (
        Panel(
            "Gateway processes",
            "Connected to the control process.",
            "none",
            (Query("max(sageserve_gateways)", "gateways"),),
            width=8,
        )
        if ours
        else Panel(
            "Age of demand",
            "Since the instant up to which it is counted.",
            "s",
            (Query("max(sageserve_demand_age_seconds)", "age"),),
            width=8,
        )
    )
    return Section(
        "Sight",
        (
            Panel(
                "Not seen",
                "1: signals of the endpoint are too old, so nothing of it is taken away. `sageserve status` says why.",
                "none",
                (Query(_ends("sageserve_blind"), "{{region}}/{{model}}"),),
                width=16,
                marks=((None, "green"), (1.0, "red")),
            ),
            heard,
        ),
    )
