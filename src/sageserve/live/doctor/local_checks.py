"""What `doctor --local` looks at: the state folder of a fleet, its settings, its keys and its audit log.

Each check is something that docs/reference/security.md says an operator must set, or that SageServe promises there. Asks no
server and changes nothing. Read next: `checks.py` for what a check is; `live/audit.py`; `cli/doctor_local.py`.
"""

import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sageserve.base.config import EngineAccess, LinkTlsSettings, LiveSettings, Scenario, TlsSettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.live.audit import AuditCheck, verify
from sageserve.live.certificates import ServedCertificate, authorities_out_of_date, holds, out_of_date
from sageserve.live.doctor.checks import Check, CheckFinding, CheckResult
from sageserve.live.doctor.retention import retention
from sageserve.live.gateway.keys import end_of

_SOON: Final = 14 * DAY
_LOOPBACK: Final = frozenset(["127.0.0.1", "localhost", "::1"])
_SECRET: Final = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What is looked at.

    Args:
        state: folder of the fleet.
        scenario: its settings.
        uid: the user whose it is to be.
        now: microseconds since 1970.
        head: a hash of the audit log that was kept elsewhere; empty: none was.
    """

    state: Path
    scenario: Scenario
    uid: int
    now: Micros
    head: str = ""

    @property
    def live(self) -> LiveSettings:
        """Of the scenario."""
        return self.scenario.live or LiveSettings()


LOCAL_CHECKS: Final[Mapping[str, Check]] = {
    one.id: one
    for one in (
        Check(
            "local-modes", "the state folder and all in it are its user's alone, and nothing in it is a link", "error", "settings"
        ),
        Check("local-bind", "who can reach the port needs a key, and is heard by nobody else", "error", "settings"),
        Check("local-keys", "no key has expired, or is about to; an operator can be told from a tenant", "warn", "settings"),
        Check(
            "local-secrets",
            "no password or token stands in the settings, and files with keys are their user's alone",
            "warn",
            "settings",
        ),
        Check("local-certificates", "certificates of the fleet's ports are good, and will be for two weeks", "error", "settings"),
        Check("local-engines", "engines elsewhere are not reached in the clear", "warn", "settings"),
        Check(
            "local-retention",
            "what batches leave is deleted when it was promised, also of who has no key any more",
            "warn",
            "settings",
        ),
        Check("local-audit", "every line of the audit log follows the one before", "error", "settings"),
    )
}


def examine_folder(facts: LocalFacts) -> tuple[CheckResult, ...]:
    """Make all checks."""
    results = []
    for name, check in LOCAL_CHECKS.items():
        try:
            found = tuple(_EXAMINE[name](facts))
        except OSError as error:
            results.append(CheckResult(check, "unknown", (), f"{error.filename or facts.state}: {error.strerror}"))
            continue
        results.append(CheckResult(check, "found" if found else "ok", found))
    return tuple(results)


def _modes(facts: LocalFacts) -> Iterator[CheckFinding]:
    folder = facts.state
    for path in [folder, *sorted(folder.rglob("*"))]:
        try:
            found = path.lstat()
        except FileNotFoundError:  # of a fleet that runs: files come and go
            continue
        where = str(path)
        if stat.S_ISLNK(found.st_mode):
            yield CheckFinding(where, "it is a link, and what a fleet writes must not be led elsewhere", f"rm {path}", "error")
        elif found.st_uid != facts.uid:
            yield CheckFinding(where, "it belongs to another user", f"chown -R {facts.uid} {folder}", "error")
        elif found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
            yield CheckFinding(where, f"others may open it (mode {mode:o})", f"chmod {wanted} {path}", "error")


def _bind(facts: LocalFacts) -> Iterator[CheckFinding]:
    live = facts.live
    if live.host in _LOOPBACK:
        return
    if not live.keys:
        said = f"the gateway listens on {live.host}, and there are no keys: it refuses everyone but this machine"
        yield CheckFinding("live.keys", said, "sageserve key new NAME, and its lines into the scenario", "error")
    if live.tls is None:
        said = f"the gateway listens on {live.host}: keys, prompts and answers come in the clear"
        yield CheckFinding(
            "live.tls", said, "live.tls: {certificate: /…, key: /…}, or something that speaks TLS in front", "warn"
        )


def _keys(facts: LocalFacts) -> Iterator[CheckFinding]:
    for key in facts.live.keys:
        where = f"live.keys: {key.name} ({key.sha256[:8]})"
        try:
            end = end_of(key)
        except ConfigError as error:
            yield CheckFinding(where, error.message, "write it as 2027-03-31", "error")
            continue
        if end is not None and end <= facts.now:
            yield CheckFinding(where, f"it expired on {key.expires}", "take its entry out, and sageserve reload", "warn")
        elif end is not None and end - facts.now < _SOON:
            said = f"it expires on {key.expires}"
            yield CheckFinding(where, said, f"sageserve key new {key.name}, and both entries until then", "warn")
        elif end is None:
            yield CheckFinding(where, "it never expires", 'give its entry expires: "2027-03-31"', "info")
    if facts.live.keys and not any(key.role == "operator" for key in facts.live.keys):
        said = "nobody may see the pages of the fleet: no key has the role operator"
        yield CheckFinding("live.keys", said, "sageserve key new NAME --role operator", "info")


def _secrets(facts: LocalFacts) -> Iterator[CheckFinding]:
    for model, engine in facts.live.engines.items():
        for name, value in engine.environment.items():
            if _SECRET.search(name) and value:
                said = f"{name} stands there in the clear, and so in scenario.yaml and in `sageserve scenario show`"
                yield CheckFinding(
                    f"live.engines.{model}.environment", said, f"live.inherit: [{name}]; export it before `sageserve up`", "warn"
                )
    for where, url in (
        ("live.store", facts.live.store),
        *((f"live.instances: {one.model}", one.url) for one in facts.live.instances),
    ):
        if "://" in url and urlsplit(url).password:
            yield CheckFinding(
                where, "a password stands in the address", "~/.pgpass or PGPASSFILE holds it for PostgreSQL", "warn"
            )

    held: dict[str, str | None] = {f"{where}.key": one.key for where, one in _ports(facts.live)}
    for name, access in facts.live.access.items():
        held |= {f"live.access.{name}.key": access.key, f"live.access.{name}.bearer_file": access.bearer_file}
    for where, key in held.items():
        if key is not None and Path(key).stat().st_mode & 0o077:
            yield CheckFinding(where, f"others may read {key}", f"chmod 600 {key}", "error")


def _ports(live: LiveSettings) -> Iterator[tuple[str, TlsSettings | LinkTlsSettings]]:
    """Ports under TLS, by where the settings say so."""
    if live.tls is not None:
        yield "live.tls", live.tls
    if live.link is not None and live.link.tls is not None:
        yield "live.link.tls", live.link.tls


def _certificates(facts: LocalFacts) -> Iterator[CheckFinding]:
    for where, one in _ports(facts.live):
        place = f"{where}.certificate"
        try:
            ServedCertificate(one, where)
            now, soon = (datetime.fromtimestamp(at // SECOND, UTC) for at in (facts.now, facts.now + _SOON))
            why, later = out_of_date(one.certificate, now), out_of_date(one.certificate, soon)
        except ConfigError as error:
            yield CheckFinding(place, error.message, error.hint, "error")
            continue
        if why:
            said = f"{one.certificate}: {why}"
            yield CheckFinding(place, said, "put a new one there: it is used from the next connection on", "error")
        elif later:
            _, last = holds(one.certificate)
            said = f"{one.certificate} expires on {last:%Y-%m-%d}"
            yield CheckFinding(place, said, "put a new one there before: it is used from the next connection on", "warn")
        if isinstance(one, LinkTlsSettings) and (over := authorities_out_of_date(one.client_ca, now)):
            said = f"{one.client_ca}: {over}, so that no gateway is let in"
            yield CheckFinding(f"{where}.client_ca", said, "put there whoever signs gateways' certificates now", "error")


def _engines(facts: LocalFacts) -> Iterator[CheckFinding]:
    for one in facts.live.instances:
        parts = urlsplit(one.url)
        access = facts.live.access.get(one.access or "", EngineAccess())
        keyed = access.bearer_file is not None or access.bearer_env is not None
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            asks = "so does the key they ask for" if keyed else "whoever reaches it need not ask the gateway"
            said = f"prompts and answers go to {parts.hostname} in the clear, and {asks}"
            yield CheckFinding(
                f"live.instances: {one.model}", said, "https:// with live.access, or a network of their own", "info"
            )


def _audit(facts: LocalFacts) -> Iterator[CheckFinding]:
    found: AuditCheck = verify(facts.state, facts.head)
    kept = f"{found.lines:,} lines before it hold"
    if found.problem:
        yield CheckFinding(
            "audit", f"{found.problem}; {kept}", "compare with a copy; whoever can write there can have done it", "error"
        )
    elif facts.head and not found.seen:
        said = f"no line has the hash {facts.head[:16]}…: lines were cut off, or all of it was written anew"
        yield CheckFinding("audit", said, "compare with a copy of the log", "error")
    elif not found.lines:
        yield CheckFinding("audit", "there is no audit log yet", "the next `sageserve up` begins one", "info")


_EXAMINE: Final[Mapping[str, Callable[[LocalFacts], Iterator[CheckFinding]]]] = {
    "local-modes": _modes,
    "local-bind": _bind,
    "local-keys": _keys,
    "local-secrets": _secrets,
    "local-certificates": _certificates,
    "local-engines": _engines,
    "local-retention": lambda facts: retention(facts.state, facts.live),
    "local-audit": _audit,
}
