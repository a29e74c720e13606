"""What a fleet that runs cannot have, ours or one that is watched: told before a process, a server or a cluster is asked.

`up`, `watch` and `scenario check` ask the same. Looks at files and programs of this machine; starts nothing. Read next:
`live/simulated_only.py`, `live/actuators/commands.py`; `up.py`, `watch.py`.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.cli.extras import need_for

if TYPE_CHECKING:
    from sageserve.base.config import LinkTlsSettings, LiveSettings, Scenario
    from sageserve.base.config.clusters import ScalerTlsSettings


def check_up(settings: "Scenario") -> None:
    """Refuse what `sageserve up` cannot start.

    Raises:
        SageServeError: why.
    """
    from sageserve.live.actuators.commands import check_commands, check_program
    from sageserve.live.simulated_only import refuse_simulated_only

    refuse_simulated_only(settings)
    check_commands(settings)
    for model, engine in (settings.live.engines if settings.live else {}).items():
        check_program(engine, f"live.engines.{model}")
    need_for(settings)
    if settings.live is not None and settings.live.link is not None and settings.live.link.tls is not None:
        check_certificates(settings.live.link.tls, "live.link.tls")
    if settings.live is not None and settings.live.services:
        _check_services(settings, settings.live)


def _check_services(settings: "Scenario", live: "LiveSettings") -> None:
    """Refuse services that fit no pool, and clusters that nobody here can reach."""
    from sageserve.cli.extras import need
    from sageserve.cli.kube import kubeconfig_file
    from sageserve.core.strategies import layout_of
    from sageserve.live.actuators.followed import pool_of_service
    from sageserve.live.kubernetes.reader import cluster_config

    need("kubernetes")
    layout = layout_of(settings)
    for one in live.services:
        pool_of_service(layout, one)
        cluster_config(live.clusters[one.cluster].context, kubeconfig_file())


def check_watch(settings: "Scenario", *, whole: bool = True) -> None:
    """Refuse what `sageserve watch` cannot watch, or an agent, of whose fleet other clusters have the rest.

    Raises:
        SageServeError: why.
    """
    from sageserve.data.rebuild.places import watched_pools
    from sageserve.live.simulated_only import refuse_simulated_only

    refuse_simulated_only(settings, ours=False)
    need_for(settings)
    watched_pools(settings, whole=whole)
    _refuse_roles(settings)
    live = settings.live
    if live is None:
        return
    for name, cluster in live.clusters.items():
        if (server := cluster.prometheus) is not None:
            files = {
                "bearer_file": server.bearer_file,
                "ca_file": server.ca_file,
                "basic.password_file": server.basic.password_file if server.basic else None,
            }
            for key, file in files.items():
                if file is not None:
                    _readable(f"live.clusters.{name}.prometheus.{key}", file)
    for name, gate in live.gates.items():
        for key, file in (("password_file", gate.password_file), ("ca_file", gate.ca_file)):
            if file is not None:
                _readable(f"live.gates.{name}.{key}", file)
    if live.scaler is not None and live.scaler.tls is not None:
        check_certificates(live.scaler.tls, "live.scaler.tls")


def check_clusters(live: "LiveSettings", kubeconfig: Path | None) -> None:
    """Refuse clusters that cannot be written to, before any server is asked.

    Raises:
        ConfigError: no kubeconfig or no such context, or a guard that cannot be read.
    """
    from sageserve.cli.kube import guard_of, kubeconfig_file
    from sageserve.live.kubernetes.reader import cluster_config

    for name, one in live.targets.items():
        if one.authority != "observe":
            guard_of(live, name)
            if live.clusters[one.cluster].ray is not None or live.clusters[one.cluster].agent is not None:
                continue  # there is no kubeconfig of it
            cluster_config(live.clusters[one.cluster].context, kubeconfig or kubeconfig_file())


def refusals(settings: "Scenario") -> Iterator[str]:
    """What the command that a scenario is for would say against it on this machine; `up` where it has no targets."""
    if settings.live is None:
        return
    command, check = ("watch", check_watch) if settings.live.targets else ("up", check_up)
    try:
        check(settings)
    except SageServeError as error:
        yield f"`sageserve {command}` would refuse it here: {error.message}" + (f"; {error.hint}" if error.hint else "")


def _refuse_roles(settings: "Scenario") -> None:
    from sageserve.core.strategies import layout_of

    roles = layout_of(settings).roles
    if len(roles) > 1:
        names = ", ".join(role.name for role in roles)
        raise ConfigError(
            f"{settings.strategy.name} sets instances apart ({names}), and nothing recorded says which are whose",
            hint="choose a strategy whose instances serve all tiers, such as foresight, lt-ua or reactive",
        )


def _readable(where: str, file: str) -> None:
    try:
        Path(file).open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"{where}: {file} cannot be read: {error.strerror}", hint="name a file that is there, readable for whoever watches"
        ) from None


def check_certificates(tls: "ScalerTlsSettings | LinkTlsSettings", where: str) -> None:
    """Refuse files of a port that cannot be used: a certificate, its key, and who may have signed those of others.

    Raises:
        ConfigError: which, and why.
    """
    from sageserve.live.certificates import out_of_date
    from sageserve.live.key_files import prepare

    for key, file in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        if file is not None:
            _readable(f"{where}.{key}", file)
    files = f"{tls.certificate} and {tls.key}"
    try:
        context = prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.certificate, tls.key)
        why = out_of_date(tls.certificate, datetime.now(UTC))
        if tls.client_ca is not None:
            files = tls.client_ca
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{where}: {files} cannot be used: {getattr(error, 'strerror', None) or error}",
            hint="PEM files; the key without a password",
        ) from None
    if why:
        raise ConfigError(f"{where}.certificate: {tls.certificate}: {why}", hint="have it renewed: nobody believes it")
