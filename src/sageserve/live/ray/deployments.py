"""What Ray's answers mean: a deployment with its bounds or count, the config as it was deployed, the same with a value changed.

A config is given back whole: applications that one leaves out are removed, so where the config of any is not known, none is
made. Values of code are not touched: a bound is changed where the config itself says `autoscaling_config` or `num_replicas:
auto`. Pure. Read next: `writer.py`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sageserve.live.kubernetes.objects import Json, KubeObject

FIELDS: Final = {"minReplicas": "min_replicas", "maxReplicas": "max_replicas"}
"""Bounds by our name and Ray's."""
REPLICAS: Final = "replicas"
_KEPT: Final = ("proxy_location", "http_options", "grpc_options", "target_capacity")
_WHOLE: Final = 100.0
_CODE: Final = "application {app} was deployed from code, and Ray keeps no config of it: serve deploy CONFIG"


@dataclass(frozen=True, slots=True)
class ServeDeployment:
    """One deployment.

    Args:
        app: its application.
        name: of it.
        values: bounds that the config says, and the replicas that are asked for.
        said: fields that the config says; what is not there is Ray's own.
        replicas: states of those that are there.
        scaled_outside: the application takes counts over the API, and no bounds.
        unbounded: why its bounds may not be written; empty: they may.
        uncounted: likewise its replicas.
    """

    app: str
    name: str
    values: Mapping[str, int]
    said: frozenset[str]
    replicas: tuple[KubeObject, ...]
    scaled_outside: bool
    unbounded: str
    uncounted: str


def deployments_of(details: KubeObject, app: str) -> dict[str, ServeDeployment]:
    """Deployments of an application, by name; none where there is no such application."""
    there = details.part("applications", app)
    return {name: _deployment(details, there, app, name) for name in there.part("deployments").data}


def _deployment(details: KubeObject, there: KubeObject, app: str, name: str) -> ServeDeployment:
    found = there.part("deployments", name)
    entry = _entry(there.part("deployed_app_config"), name)
    outside = there.at("external_scaler_enabled") is True
    scaling = entry.part("autoscaling_config")
    values = {field: value for field, key in FIELDS.items() if (value := scaling.number(key)) is not None}
    said = set(values)
    fixed = entry.number("num_replicas")
    applied = found.part("deployment_config").at("autoscaling_config")
    count = found.number("target_num_replicas") or 0
    if fixed is not None and not outside:
        said.add(REPLICAS)
        count = fixed  # what runs follows a little later
    common = _untouchable(details, there, app)
    config = "" if there.part("deployed_app_config").data else _CODE.format(app=app)
    auto = entry.at("num_replicas") == "auto"
    return ServeDeployment(
        app,
        name,
        values | {REPLICAS: count},
        frozenset(said),
        tuple(found.parts("replicas")),
        outside,
        unbounded=common or config or _unbounded(name, scaling=bool(scaling.data), auto=auto, whole="maxReplicas" in values),
        uncounted=common or ("" if outside else config or _uncounted(name, autoscaled=applied is not None or auto)),
    )


def _untouchable(details: KubeObject, there: KubeObject, app: str) -> str:
    """Why the config of an application may not be deployed anew; empty: it may."""
    if there.text("status") == "DELETING":
        return f"application {app} is being deleted"
    if (capacity := details.at("target_capacity")) not in (None, _WHOLE, 100):
        return f"target_capacity is {capacity}: an upgrade is under way, and Ray scales every number by it"
    return ""


def _unbounded(name: str, *, scaling: bool, auto: bool, whole: bool) -> str:
    if not scaling and not auto:
        return f"the Serve config says no autoscaling_config of {name}: write it there, or authority: full"
    if not whole and not auto:
        return f"the Serve config says no max_replicas of {name}: write it there"
    return ""


def _uncounted(name: str, *, autoscaled: bool) -> str:
    said = f"Ray's own autoscaler decides the replicas of {name}: take its autoscaling_config away, or write authority: bounds"
    return said if autoscaled else ""


def whole_config(details: KubeObject) -> dict[str, Json] | str:
    """The config as it was deployed; or why it cannot be put together."""
    configs: list[Json] = []
    for name in details.part("applications").data:
        one = details.part("applications", name)
        config = one.part("deployed_app_config").data
        if config:
            configs.append(copy.deepcopy(dict(config)))
        elif one.text("source") != "imperative":
            return f"the config of application {name} is not known now, and a config without it would remove it"
    found: dict[str, Json] = {key: copy.deepcopy(details.at(key)) for key in _KEPT if details.at(key) is not None}
    return {**found, "applications": configs}


def changed_config(details: KubeObject, where: tuple[str, str], changes: Mapping[str, int | None]) -> dict[str, Json] | str:
    """The config as it was deployed, with fields of one deployment changed, or taken away (None)."""
    config = whole_config(details)
    if isinstance(config, str):
        return config
    app, name = where
    apps = config["applications"]
    assert isinstance(apps, list)
    entry = _entry_in(next(one for one in apps if one.get("name") == app), name)
    for field, value in changes.items():
        if field == REPLICAS:
            _put(entry, "num_replicas", value)
            continue
        scaling = entry.setdefault("autoscaling_config", {})
        if scaling is None:
            scaling = entry["autoscaling_config"] = {}
        assert isinstance(scaling, dict)
        _put(scaling, FIELDS[field], value)
        if not scaling:
            del entry["autoscaling_config"]
    return config


def _put(at: dict[str, Json], key: str, value: int | None) -> None:
    if value is None:
        at.pop(key, None)
    else:
        at[key] = value


def _entry(config: KubeObject, name: str) -> KubeObject:
    """What a config says of a deployment, or nothing."""
    return next((one for one in config.parts("deployments") if one.text("name") == name), KubeObject({}))


def _entry_in(config: dict[str, Json], name: str) -> dict[str, Json]:
    """The same to be changed; made where there is none."""
    entries = config.setdefault("deployments", [])
    assert isinstance(entries, list)
    for one in entries:
        if isinstance(one, dict) and one.get("name") == name:
            return one
    made: dict[str, Json] = {"name": name}
    entries.append(made)
    return made
