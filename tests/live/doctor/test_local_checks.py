"""`doctor --local` finds each thing that the security page tells an operator to set, and is silent where it is set."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.units import DAY, SECOND
from sageserve.cli.main import app
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.audit import note
from sageserve.live.certificates import holds
from sageserve.live.doctor.local_checks import LOCAL_CHECKS, LocalFacts, examine_folder
from sageserve.live.store.models import Batch, File
from sageserve.live.store.sql import open_store
from tests.live.papers import Authority

KEY = "live.keys=[{name: alice, sha256: '" + "0" * 64 + "', expires: '2027-03-31', role: operator, keep: 7d}]"
NOW = 1_805_000_000_000_000  # March 14, 2027


def found(state: Path, *overrides: str, head: str = "", now: int = NOW) -> dict[str, list[str]]:
    facts = LocalFacts(state, load_scenario("local", overrides=overrides), state.stat().st_uid, now, head)
    return {one.check.id: [finding.said for finding in one.findings] for one in examine_folder(facts) if one.findings}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder as it should be."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "scenario.yaml").write_text(resolved_yaml(load_scenario("local", overrides=[KEY])), "utf-8")
    (folder / "scenario.yaml").chmod(0o600)
    note(folder, 1, "me", "up", {})
    return folder


def test_a_fleet_that_is_as_it_should_be_has_no_findings(state: Path) -> None:
    assert found(state, KEY) == {}


def test_each_fault_is_found(state: Path) -> None:
    (state / "open.log").touch(mode=0o644)
    (state / "open.log").chmod(0o644)
    (state / "link").symlink_to("/etc/passwd")
    assert len(found(state, KEY)["local-modes"]) == 2
    (state / "open.log").unlink()
    (state / "link").unlink()
    assert "there are no keys" in found(state, "live.host=0.0.0.0")["local-bind"][0]
    assert "in the clear" in found(state, "live.host=0.0.0.0", KEY)["local-bind"][0]
    (state.parent / "key.pem").touch(mode=0o600)
    tls = f"live.tls={{certificate: /c.pem, key: {state.parent / 'key.pem'}}}"
    assert list(found(state, "live.host=0.0.0.0", KEY, tls)) == ["local-certificates"]
    (state.parent / "key.pem").chmod(0o640)
    assert "others may read" in found(state, KEY, tls)["local-secrets"][0]
    assert "expires on 2027-03-31" in found(state, KEY, now=NOW + 10 * DAY)["local-keys"][0]
    assert "it expired on 2027-03-31" in found(state, KEY, now=NOW + 20 * DAY)["local-keys"][0]
    assert len(found(state, KEY.replace("expires: '2027-03-31', role: operator, ", ""))["local-keys"]) == 2
    assert "kept for 30d" in found(state, KEY.replace(", keep: 7d", ""))["local-retention"][0]
    engine = "live.engines={llama-3.1-8b: {command: [x, '{port}'], environment: {HF_TOKEN: hf_abc}}}"
    assert "HF_TOKEN" in found(state, KEY, engine)["local-secrets"][0]
    assert "password" in found(state, KEY, "live.store=postgresql://a:b@h/c")["local-secrets"][0]
    instance = "live.instances=[{region: east, model: llama-3.1-8b, url: 'http://10.0.0.7:8000'}]"
    assert "need not ask the gateway" in found(state, KEY, instance)["local-engines"][0]
    access = f"live.access={{a: {{bearer_file: {state.parent / 'key.pem'}}}}}"
    asked = found(state, KEY, access, instance.replace("8000'", "8000', access: a"))
    assert "so does the key they ask for" in asked["local-engines"][0]
    assert "others may read" in asked["local-secrets"][0]
    assert "local-engines" not in found(state, KEY, instance.replace("http:", "https:"))
    assert "no line has the hash" in found(state, KEY, head="1" * 64)["local-audit"][0]
    log = next((state / "audit").glob("*.jsonl"))
    log.write_bytes(log.read_bytes().replace(b'"me"', b'"he"'))
    assert "was changed" in found(state, KEY)["local-audit"][0]


def test_certificates_that_end_or_cannot_be_used_are_found(state: Path) -> None:
    paper = Authority(state.parent, "ours").issue("control")
    where = f"live.link={{tls: {{certificate: {paper.certificate}, key: {paper.key}, client_ca: {state.parent / 'ours.crt'}}}}}"
    Path(paper.key).chmod(0o600)
    end = int(holds(paper.certificate)[1].timestamp()) * SECOND
    assert found(state, KEY, where, now=end - 20 * DAY) != {}, "it is not good yet"
    for now, said in ((end + DAY, "it expired on"), (end - DAY // 2, "expires on"), (end - 3 * DAY, "it is good from")):
        assert said in found(state, KEY, where, now=now)["local-certificates"][0]
    late = found(state, KEY, where, now=end + DAY)["local-certificates"][1]
    assert "ours.crt: all in it expired by" in late, "and nobody is let in"
    newer = Authority(state.parent, "newer")
    old, new = (Path(file).read_text("utf-8") for file in (state.parent / "ours.crt", newer.file))
    (state.parent / "ours.crt").write_text(old + new.replace("M", "!", 1), "utf-8")
    assert len(found(state, KEY, where, now=end + DAY)["local-certificates"]) == 1, "what cannot be read may be good"
    (said,) = found(state, KEY, where.replace("control.key", "none.key"))["local-certificates"]
    assert f"{state.parent / 'none.key'} cannot be used: No such file" in said
    assert "control.pem and" not in said, "one of them is not there"


def test_the_command_says_it_with_its_exit_code(state: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--local", "--state", str(state), "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == list(LOCAL_CHECKS)
    assert (done.exit_code, {line["state"] for line in lines} <= {"ok", "found"}) == (0, True)
    state.chmod(0o755)
    assert CliRunner().invoke(app, ["doctor", "--local", "--state", str(state)]).exit_code == 1


def test_every_check_is_explained_where_people_look(repo_root: Path) -> None:
    page = (repo_root / "docs/reference/doctor.md").read_text("utf-8")
    assert [name for name in LOCAL_CHECKS if f"`{name}`" not in page] == []


def test_what_is_kept_of_who_has_no_key_any_more_is_told(state: Path) -> None:
    store = open_store("sqlite", state)
    for number, owner in enumerate(("alice", "bob", "anyone")):
        store.begin_file(File(f"file-{number}", owner, "n", "batch", 1, None))
        store.finish_file(f"file-{number}", 0)
    store.add_batch(Batch("batch_1", "bob", "/v1/x", "file-1", "24h", {}, 3600, 1, 10**15))
    store.close()
    for path in state.glob("store.db*"):
        path.chmod(0o600)
    assert found(state, KEY) == {"local-retention": ["bob has no key any more, and 1 files and 1 batches are kept"]}
