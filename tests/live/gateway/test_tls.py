"""The public port under TLS: a certificate that is renewed is used without a restart, one that is broken is not."""

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from sageserve.base.config import LiveSettings, TlsSettings
from sageserve.base.errors import ConfigError
from sageserve.live.certificates import ServedCertificate
from sageserve.live.gateway.server import GatewayBinding, GatewayProcess
from tests.core.small import scenario

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on this machine")


def issue(folder: Path, name: str, kind: str = "ec") -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    option = {"ec": "ec_paramgen_curve:P-256", "rsa": "rsa_keygen_bits:2048"}[kind]
    words = ["openssl", "req", "-x509", "-newkey", kind, "-pkeyopt", option, "-nodes", "-days", "2"]
    more = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*words, *more], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def served(tmp_path: Path) -> TlsSettings:
    certificate, key = issue(tmp_path, "served")
    return TlsSettings(certificate=str(certificate), key=str(key))


async def ask(port: int, trusted: Path, *, name: bool = True) -> tuple[bytes, bytes]:
    """The head of the answer about the gateway's health, and the certificate it was given under."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.check_hostname = name
    host = "localhost" if name else ""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return head, shown


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_the_port_speaks_tls_and_sees_a_new_certificate(served: TlsSettings, tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        binding = GatewayBinding("127.0.0.1", 0)
        worker = GatewayProcess(scenario().model_copy(update={"live": LiveSettings(tls=served)}), binding)
        await worker.start()
        try:
            head, first = await ask(worker.port, Path(served.certificate))
            assert head.startswith(b"HTTP/1.1 200")
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
            writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b"HTTP/1.1 200" not in await reader.read()
            writer.close()
            certificate, key = issue(tmp_path, "renewed", kind)
            certificate.replace(served.certificate)
            assert worker._certificate is not None
            worker._certificate.look()  # between the two files: they do not belong together
            key.replace(served.key)
            worker._certificate.look()
            _, second = await ask(worker.port, Path(served.certificate))
            assert second != first
            _, unnamed = await ask(worker.port, Path(served.certificate), name=False)
            assert unnamed == second, "a client that does not say which host it wants"
        finally:
            await worker.close()

    asyncio.run(run())


def test_what_cannot_be_used_is_refused_at_the_start_and_passed_over_later(
    served: TlsSettings, caplog: pytest.LogCaptureFixture
) -> None:
    held = ServedCertificate(served)
    Path(served.key).write_text("no key", "utf-8")
    held.look()
    held.look()
    assert [record.getMessage()[:35] for record in caplog.records] == ["the new certificate cannot be used,"]
    with pytest.raises(ConfigError, match=r"live\.tls"):
        ServedCertificate(served)
