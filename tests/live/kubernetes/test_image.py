"""The image: its steps make a root in which SageServe runs as the chart runs it; with SAGESERVE_IMAGE, in a root that is empty.

Read next: the Containerfile; `bench/image.py`; `empty_root.py`.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from bench.image import EXTRAS, HOME, STATE, USER, pinned
from bench.sbom import OURS, canonical, locked, wanted_by_users
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.live.kubernetes.manifests import FILE, SETTINGS, manifests
from tests.live.kubernetes.empty_root import Container
from tests.live.kubernetes.test_manifests import CHOICES, scenario, target
from tests.live.prometheus.real import program

ROOT = Path(__file__).resolve().parents[3]
WHERE = os.environ.get("SAGESERVE_IMAGE", "")  # noqa: TID251 # named by hand
FILE_LINES = [line.split(" ", 1) for line in (ROOT / "Containerfile").read_text("utf-8").splitlines() if re.match("[A-Z]", line)]
UNSHARE = "/usr/bin/unshare"
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def said(word: str) -> list[str]:
    return [rest for first, rest in FILE_LINES if first == word]


def container_of(folder: Path) -> dict[str, Any]:
    """The container of the chart's Deployment."""
    settings = scenario(folder, targets={"small": target() | {"keda": True}}, scaler={"listen": "0.0.0.0:7001"})
    found = manifests(settings, resolved_yaml(settings), replace(CHOICES, secrets={}))
    [deployment] = [one for one in found if one["kind"] == "Deployment"]
    pod: dict[str, Any] = json.loads(json.dumps(deployment, allow_nan=False))["spec"]["template"]["spec"]
    return {**pod["containers"][0], "pod": pod}


def test_the_file_and_the_chart_say_the_same(tmp_path: Path) -> None:
    chart = container_of(tmp_path)
    assert said("USER") == [f"{USER}:{USER}"]
    assert {chart["pod"]["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
    assert json.loads(said("ENTRYPOINT")[0]) == chart["command"] == [OURS]
    env = dict(one.split("=") for one in said("ENV")[0].split())
    assert env == {"PATH": f"/{HOME}/bin", "HOME": f"/{STATE}"}
    assert {one["name"]: one["value"] for one in chart["env"]}.items() <= env.items()
    writes = {one["mountPath"] for one in chart["volumeMounts"] if not one.get("readOnly")}
    assert writes == {"/tmp", f"/{STATE}"}  # noqa: S108 # of the container
    assert chart["securityContext"]["readOnlyRootFilesystem"] is True
    assert said("ARG") == [f"EXTRAS={','.join(EXTRAS)}"]
    assert said("FROM")[-1] == "scratch"


def test_only_the_first_step_asks_an_index_and_the_steps_are_there() -> None:
    first, second = said("RUN")
    assert first == 'python -m bench.image wheels /wheels --extras "$EXTRAS"'
    assert second == "--network=none python -m bench.image root /wheels /made"
    assert said("COPY") == [". .", "--from=steps /made/ /"]
    kept = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    read = {"!bench/image.py", "!bench/sbom.py", "!requirements.lock", "!pyproject.toml", "!src"}
    assert set(kept) == read | {f"!{PROJECT['readme']}", *(f"!{name}" for name in PROJECT["license-files"])}
    assert all((ROOT / line[1:]).exists() for line in kept)


def closure(extras: tuple[str, ...]) -> Iterator[str]:
    """What an install needs of others, as the packages that are installed say themselves."""
    seen: set[tuple[str, str]] = set()
    left = [(OURS, extra) for extra in ("", *extras)]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        yield canonical(one[0])
        try:
            needs = distribution(one[0]).requires or []
        except PackageNotFoundError:  # of another system
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": one[1]}):
                left += [(need.name, extra) for extra in ("", *need.extras)]


def test_what_is_installed_is_all_that_its_extras_need_by_hash_and_no_other_extra() -> None:
    text = pinned(LOCK, wanted_by_users(PROJECT, EXTRAS))
    names = {line.split("==")[0] for line in text.splitlines() if not line.startswith(" ")}
    assert set(closure(EXTRAS)) - {OURS} <= names
    assert names.isdisjoint({"statsforecast", "grafana-foundation-sdk", "pytest", "ray"})
    assert text.count("--hash=sha256:") == sum(len(one.hashes) for one in locked(LOCK) if one.name in names)
    with pytest.raises(SystemExit, match="no extra liv: there are"):
        wanted_by_users(PROJECT, ["liv"])


@pytest.fixture(scope="module")
def made() -> Path:
    """The root that the steps of the file make: the first with a network, once, the second without."""
    python, folder = str(getattr(sys, "_base_executable", sys.executable)), Path(WHERE).resolve()
    first, second = (shlex.split(one.removeprefix("--network=none ")) for one in said("RUN"))
    names = {"python": python, "/wheels": str(folder / "wheels"), "/made": str(folder / "made"), "$EXTRAS": ",".join(EXTRAS)}
    if not (folder / "wheels" / "extras.json").exists():
        subprocess.run([names.get(one, one) for one in first], check=True, cwd=ROOT)
    shutil.rmtree(folder / "made", ignore_errors=True)
    subprocess.run([UNSHARE, "--net", *(names.get(one, one) for one in second)], check=True, cwd=ROOT)
    return folder / "made"


def ran(root: Path, folder: Path, one: Container) -> dict[str, Any]:
    file = folder / "container.json"
    file.write_text(json.dumps(asdict(one), allow_nan=False), "utf-8")
    module = (sys.executable, "-m", "tests.live.kubernetes.empty_root", str(root), str(file))
    done = subprocess.run([UNSHARE, "--net", "--mount", *module], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.extended
@pytest.mark.skipif(not WHERE, reason="set SAGESERVE_IMAGE to a folder: the root is made in it")
def test_the_root_has_no_shell_and_one_user_and_says_what_is_in_it(made: Path) -> None:
    programs = {
        one.name for one in made.rglob("*") if one.is_file() and not one.is_symlink() and one.parent.name in {"bin", "sbin"}
    }
    assert {one for one in programs if not fnmatch.fnmatch(one, "python3*")} <= {OURS}
    assert not any(one.stat().st_mode & 0o6000 for one in made.rglob("*") if not one.is_symlink()), "nothing is set-user-id"
    bill = json.loads((made / "usr/share/sageserve/sageserve.cdx.json").read_text("utf-8"))
    there = {canonical(one.name.split("-")[0]) for one in made.rglob("*.dist-info")}
    assert there - {OURS} <= {one["name"] for one in bill["components"]}


@pytest.mark.extended
@pytest.mark.skipif(not WHERE, reason="set SAGESERVE_IMAGE to a folder: the root is made in it")
def test_it_runs_there_as_the_chart_runs_it_and_ends_when_it_is_told_to(made: Path, tmp_path: Path) -> None:
    chart = container_of(tmp_path)
    env = dict(one.split("=") for one in said("ENV")[0].split())
    settings = tmp_path / "settings"
    settings.mkdir()
    text = (tmp_path / "fleet.yaml").read_text("utf-8").replace("http://prometheus:9090", "http://127.0.0.1:9090")
    (settings / FILE).write_text(text, "utf-8")
    writes = ["/tmp", f"/{STATE}"]  # noqa: S108 # of the container
    page = chart["readinessProbe"]["httpGet"]["path"]
    port = next(one["containerPort"] for one in chart["ports"] if one["name"] == chart["readinessProbe"]["httpGet"]["port"])
    words = [*chart["command"], *chart["args"]]
    server = [
        program("prometheus"),
        "--config.file=/dev/null",
        f"--storage.tsdb.path={tmp_path}/data",
        "--web.listen-address=:9090",
    ]
    one = Container(words, env, {str(settings): SETTINGS}, writes, server, f"http://127.0.0.1:{port}{page}", 120.0)
    ended = ran(made, tmp_path, one)
    assert ended["well"].startswith("200 # HELP"), ended
    assert ended["code"] == 0, ended
    assert "Traceback" not in ended["stderr"]


@pytest.mark.extended
@pytest.mark.skipif(not WHERE, reason="set SAGESERVE_IMAGE to a folder: the root is made in it")
def test_a_simulation_is_played_there_and_zones_are_known(made: Path, tmp_path: Path) -> None:
    env = dict(one.split("=") for one in said("ENV")[0].split())
    words = [
        OURS,
        "simulate",
        "quickstart",
        "--set",
        "workload.generate.length=1h",
        "--set",
        "workload.generate.requests=5000",
        "--out",
        f"/{STATE}/run",
        "--json",
    ]
    ended = ran(made, tmp_path, Container(words, env, {}, ["/tmp", f"/{STATE}"], patience_s=300.0))  # noqa: S108 # there
    assert ended["code"] == 0, ended["stderr"]
    assert json.loads(ended["stdout"]), "a summary"
    zone = f"/{HOME}/bin/python -c".split()
    words = [
        *zone,
        "import zoneinfo, ssl; zoneinfo.ZoneInfo('Europe/Berlin'); print(len(ssl.create_default_context().get_ca_certs()))",
    ]
    assert int(ran(made, tmp_path, Container(words, env))["stdout"]) > 50
