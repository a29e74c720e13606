"""What charts of `sageserve render` share: names that Kubernetes takes, folders of Secrets, settings as a pod has them, files.

Knows no object. Read next: `render_chart.py`, `render_gateways.py`, the users.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sageserve.base.errors import ConfigError

if TYPE_CHECKING:
    from sageserve.base.config import Scenario

_CHART: Final = "Chart.yaml"
_VALUES: Final = "values.yaml"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SECRET: Final = re.compile("auth|cookie|token|key|secret|password", re.IGNORECASE)
_IMAGE: Final = re.compile(r"[A-Za-z0-9][^\s]*")
_SIZE: Final = re.compile(r"[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?")


def check_names(namespace: str, image: str, storage: str) -> None:
    """Kubernetes takes them.

    Raises:
        ConfigError: it does not.
    """
    _check(namespace, "--namespace", _NAME, "a name of small letters, digits and hyphens")
    _check(image, "--image", _IMAGE, "such as registry.example/sageserve:1")
    _check(storage, "--storage", _SIZE, "such as 5Gi")


def check_secret(option: str, name: str) -> None:
    """A Secret may be called so.

    Raises:
        ConfigError: it may not.
    """
    _check(name, option, _NAME, "the name of a Secret, such as gateway-tls")


def _check(text: str, option: str, pattern: "re.Pattern[str]", hint: str) -> None:
    if not pattern.fullmatch(text):
        raise ConfigError(f"{option}: {text!r} is none", hint=hint)


def secret_folders(texts: "Sequence[str]") -> dict[str, str]:
    """Folders by Secret.

    Raises:
        ConfigError: one is not NAME:FOLDER, or two things would stand in one folder.
    """
    from sageserve.live.kubernetes.manifests import SETTINGS, STATE

    found = [_secret(text) for text in texts]
    for number, (_, folder) in enumerate(found):
        taken = [STATE, SETTINGS, "/tmp", *(other for _, other in found[:number])]  # noqa: S108 # of the container
        if folder.rstrip("/") in taken:
            raise ConfigError(f"--secret: {folder} is taken", hint="give each Secret a folder of its own")
    return dict(found)


def _secret(text: str) -> tuple[str, str]:
    name, _, folder = text.partition(":")
    if not _NAME.fullmatch(name) or not folder.startswith("/") or folder == "/":
        raise ConfigError(f"--secret {text!r} is not NAME:FOLDER", hint="such as prometheus-token:/var/run/prometheus")
    return name, folder


def settings_inside(settings: "Scenario", home: str) -> "Scenario":
    """Settings as a pod of the cluster `home` has them: its own account in the place of a context.

    Raises:
        ConfigError: a header may hold a secret, and everybody who may read a ConfigMap would read it.
    """
    live = settings.live
    assert live is not None
    for name, one in live.clusters.items():
        secret = next((each for each in (one.prometheus.headers if one.prometheus else ()) if _SECRET.search(each)), None)
        if secret is not None:
            raise ConfigError(
                f"live.clusters.{name}.prometheus.headers: {secret} would stand in a ConfigMap",
                hint="put the token into a Secret: bearer_file, and --secret NAME:FOLDER",
            )
    clusters = live.clusters | {home: live.clusters[home].model_copy(update={"context": None})}
    return settings.model_copy(update={"live": live.model_copy(update={"clusters": clusters})})


def write_folder(found: "Mapping[str, str]", out: Path | None, namespace: str) -> None:
    """Write a Helm chart, beside what its user wrote.

    Raises:
        ConfigError: no folder is named, or it holds what is no chart of this scenario.
    """
    from sageserve.data.documents import write_texts
    from sageserve.live.kubernetes.chart_values import TEMPLATES

    if out is None:
        raise ConfigError("--format helm writes a folder", hint="-o deploy/sageserve")
    inner = {name.removeprefix(f"{TEMPLATES}/"): text for name, text in found.items() if name.startswith(f"{TEMPLATES}/")}
    files, kept_values = _beside(out, found)
    left = sorted(one.name for one in (out / TEMPLATES).glob("*") if one.name not in inner)
    if left:
        raise ConfigError(f"{out / TEMPLATES} also holds {', '.join(left)}", hint="take it away, or name another folder")
    write_texts(out, {name: text for name, text in files.items() if "/" not in name})
    write_texts(out / TEMPLATES, inner)
    if kept_values:
        typer.echo(kept_values, err=True)
    typer.echo(f"{len(found)} files in {out}; helm install sageserve {out} -n {namespace} --create-namespace", err=True)


def _beside(out: Path, found: "Mapping[str, str]") -> tuple[dict[str, str], str]:
    """Files to be written where some may be already, and what is said of values that are kept; empty: nothing.

    Raises:
        ConfigError: what is there is not a chart of this scenario.
    """
    from sageserve.data.documents import read_file
    from sageserve.data.yaml_positions import read_yaml

    chart, values, files = out / _CHART, out / _VALUES, dict(found)
    if not chart.exists():
        if taken := [name for name in found if (out / name).exists()]:
            raise ConfigError(
                f"{out} is no chart, and holds {', '.join(taken)}", hint="name a folder of its own, such as -o deploy/sageserve"
            )
        return files, ""
    there, mine = read_file(chart).values, read_yaml(found[_CHART], _CHART).values
    if there.get("name") != mine["name"] or "sageserve render " not in str(there.get("description")):
        raise ConfigError(f"{chart} is of another chart, {there.get('name')}", hint="name another folder, or take that one away")
    line = next(one for one in found[_CHART].splitlines() if one.startswith("appVersion:"))
    files[_CHART] = re.sub(r"^appVersion:.*$", lambda _: line, chart.read_text("utf-8"), count=1, flags=re.MULTILINE)
    if not values.exists():
        return files, ""
    theirs, ours = read_file(values).values, read_yaml(files.pop(_VALUES), _VALUES).values
    differ = [key for key in {**ours, **theirs} if (key in theirs, theirs.get(key)) != (key in ours, ours.get(key))]
    said = f"{values} is kept; it differs in {', '.join(differ)}: take it away to have it written anew, or helm install -f FILE"
    return files, said if differ else ""
