"""What the settings of a fleet that runs cannot say, and those of a simulated one can. Knows no process.

Read next: `docs/how-to/roll-out.md`, docs/how-to/scale-to-zero.md, docs/reference/money.md ("A price of CO2").
"""

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.core.layout import refuse_apart
from sageserve.core.own_rules import own_rules
from sageserve.core.strategies import kind_of, may_sleep, or_one, where_zero


def refuse_simulated_only(scenario: Scenario, *, ours: bool = True) -> None:
    """Refuse what a fleet that runs, ours or one that is watched, cannot have.

    Args:
        scenario: its settings.
        ours: it is not watched.

    Raises:
        ConfigError: prefill and decode apart, rollouts, endpoints that may have no instance, a price of CO2 by the hours of a
            window, no rule or strategy.
        PluginError: a rule of the user's cannot be imported, or gives no number.
    """
    refuse_apart(scenario, "a fleet that runs is neither served nor watched")
    if ours:
        own_rules(scenario)  # gateways ask them, and would not start
        kind_of(scenario)  # nor would control, with one that can do nothing of nothing
    hourly = [name for name, region in scenario.regions.items() if isinstance(region.carbon, tuple)]
    if scenario.carbon_price and hourly:
        raise ConfigError(
            f"regions.{hourly[0]}.carbon: its hours count from the start of a window, and a fleet that runs has none",
            hint="give one number, the grid's mean, or take carbon_price out",
        )
    live = scenario.live or LiveSettings()
    if not (live.ours and ours) and (none := may_sleep(scenario)):
        raise ConfigError(
            f"{where_zero(scenario)}: {none[0]} could have no instance, and "
            + (f"live.actuator is {live.actuator}: engines are others'" if ours else "who waits for one is not seen")
            + (", and none can be woken" if ours else ": a fleet of ours, and a simulation, are scaled from zero"),
            hint=f"give {or_one(scenario, none[0])}",
        )
    if scenario.rollouts:
        raise ConfigError(
            "rollouts: a fleet that runs begins one when it is told, not by its settings"
            if ours
            else "rollouts: what is watched is others', and rolled out by them",
            hint="put them into a file that extends this one; `sageserve rollout begin FILE` begins it in the fleet that runs"
            if ours
            else "take them out of the file",
        )
