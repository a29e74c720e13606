"""What a scenario may ask of a simulated fleet alone. Knows no process.

Read next: `docs/how-to/roll-out.md`, docs/reference/money.md ("A price of CO2").
"""

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError


def refuse_simulated_only(scenario: Scenario) -> None:
    """Refuse what a fleet that runs, ours or one that is watched, cannot have.

    Raises:
        ConfigError: rollouts, or a price of CO2 by the hours of a window.
    """
    hourly = [name for name, region in scenario.regions.items() if isinstance(region.carbon, tuple)]
    if scenario.carbon_price and hourly:
        raise ConfigError(
            f"regions.{hourly[0]}.carbon: its hours count from the start of a window, and a fleet that runs has none",
            hint="give one number, the grid's mean, or take carbon_price out",
        )
    if scenario.rollouts:
        raise ConfigError(
            "rollouts: they are simulated; a fleet that runs cannot start some of its instances by another command yet",
            hint="take them out of the file; to change a command, `sageserve down --drain`, then `sageserve up`",
        )
