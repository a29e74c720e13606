"""OpenAI's `service_tier` and our tiers: which one a request means, and which name says what it got.

Unless the scenario says otherwise: priority and fast are the interactive tier with the tightest promise, flex the first batch
tier, every other name and none at all the interactive tier with the laxest. Knows no request. Read next: `request.py`.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.live.gateway.api_error import bad_request

NAMES: Final = ("auto", "default", "standard", "scale", "priority", "fast", "flex")
"""What clients of OpenAI's API may send; `standard` is an older name of `default`."""
_TIGHT: Final = ("priority", "fast")


class ServiceTiers:
    """The two sets of names, and the way between them.

    Args:
        scenario: its tiers, and `live.service_tiers`.

    Raises:
        ConfigError: `live.service_tiers` names a tier that is not there.
    """

    def __init__(self, scenario: Scenario) -> None:
        names = list(scenario.tiers)
        said: Mapping[str, str] = scenario.live.service_tiers if scenario.live else {}
        if unknown := sorted(set(said.values()) - set(names)):
            raise ConfigError(f"live.service_tiers: there is no tier {unknown[0]!r}", hint=f"tiers are {', '.join(names)}")
        interactive = sorted((tier.ttft, k) for k, tier in enumerate(scenario.tiers.values()) if tier.ttft is not None)
        batch = [k for k, tier in enumerate(scenario.tiers.values()) if tier.batch]
        tight = interactive[0][1] if interactive else batch[0]
        lax = interactive[-1][1] if interactive else batch[0]
        means = dict.fromkeys(NAMES, lax) | dict.fromkeys(_TIGHT, tight) | {"flex": batch[0] if batch else lax}
        self.by_name: Mapping[str, int] = means | {name: names.index(tier) for name, tier in said.items()}
        self.codes: Mapping[bytes, int] = {name.encode(): k for k, name in enumerate(names)}
        self.default = self.by_name["default"]
        shown = {tight: "priority", **dict.fromkeys(batch, "flex"), lax: "default"}
        self._shown = [shown.get(k, "default") for k in range(len(names))]
        self._tags: dict[tuple[int, str | None], bytes] = {}

    def code(self, name: str) -> int:
        """The tier that a service_tier means.

        Raises:
            ApiError: no such name.
        """
        code = self.by_name.get(name)
        if code is None:
            raise bad_request(
                f"Invalid service_tier {name[:40]!r}: choose one of {', '.join(sorted(self.by_name))}.",
                param="service_tier",
                code="invalid_value",
            )
        return code

    def tag(self, tier: int, asked: str | None) -> bytes:
        """What an answer says about the tier that was used: b'"service_tier":"default",'.

        The name that was asked for when it means this tier (auto becomes default), else the usual one.
        """
        key = (tier, asked)
        tag = self._tags.get(key)
        if tag is None:
            name = self._shown[tier] if asked in {None, "auto"} or self.by_name.get(asked or "") != tier else asked
            tag = self._tags[key] = b'"service_tier":%s,' % orjson.dumps(name)
        return tag
