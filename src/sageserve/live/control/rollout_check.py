"""What a fleet that runs cannot roll out, told before anything begins. Decides nothing. Read next: `live_rollouts.py`."""

from sageserve.base.config import LiveSettings, RolloutSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.data.documents import suggest
from sageserve.live.actuators.commands import check_command, check_program


def check_rollout(one: RolloutSettings, scenario: Scenario) -> None:
    """Refuse a rollout that a fleet that runs cannot do.

    Raises:
        ConfigError: why.
    """
    live = scenario.live or LiveSettings()
    if not live.ours:
        raise ConfigError("engines that others run are not ours to start in another version", hint="roll out where they are run")
    if not live.safety.act:
        raise ConfigError("live.safety.act is off: decisions are only written down", hint="turn it on, and reload")
    if one.model not in scenario.models:
        raise ConfigError(
            f"rollouts: there is no model {one.model!r}{suggest(one.model, list(scenario.models))}",
            hint=f"models: {', '.join(scenario.models)}",
        )
    if all(tier.batch for tier in scenario.tiers.values()):
        raise ConfigError("no tier promises a first token, and canaries are judged by that", hint="give a tier `ttft`")
    if one.engine is not None:
        check_command(one.engine, f"rollouts.{one.model}.engine")
        check_program(one.engine, f"rollouts.{one.model}.engine")
    elif one.model in live.engines:
        raise ConfigError(
            f"rollouts: how the new version of {one.model} is run is not said",
            hint=f"give `engine: {{command: [...]}}`, as live.engines.{one.model} has it",
        )
