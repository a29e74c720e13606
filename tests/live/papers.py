"""Certificates for tests, made in memory and written where they are wanted: of an authority, and of those that it signs.

Read next: `test_link_port.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Paper:
    """A certificate and its key, in files."""

    certificate: str
    key: str


class Authority:
    """Signs certificates, and puts them into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.file = str(folder / f"{name}.crt")
        self._number = 1
        own = self._build(self._name, self._key, days=2)
        made = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(self._key, hashes.SHA256())
        Path(self.file).write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, days: int = 2) -> Paper:
        """A certificate of this machine's loopback address, good for so many days from yesterday on."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
        made = self._build(_named(name), key, days=days).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        paper = Paper(str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key"))
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        Path(paper.key).write_bytes(secret)
        Path(paper.certificate).write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return paper

    def _build(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int) -> x509.CertificateBuilder:
        self._number += 1
        begun = datetime.now(UTC) - _DAY  # noqa: TID251 # certificates are judged by the true day
        built = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        until = begun + days * _DAY + (timedelta(minutes=1) if not days else timedelta())
        return built.serial_number(self._number).not_valid_before(begun).not_valid_after(until)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
