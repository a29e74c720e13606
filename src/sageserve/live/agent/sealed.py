"""Sealed files: bytes with a signature in front of them, and the keys that make and check it.

    sageserve-sealed 1 KEY SIGNATURE        KEY names the key, 16 hex digits; SIGNATURE is Ed25519, 128 hex digits
    ...                                     what was sealed, as it is

One file, so that nobody can fetch a plan and the signature of another. The signature covers the first line's other words too, and
is written in one way only: a file in which any byte is another is refused. Knows no plan. Read next: `verdict.py`.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from sageserve.base.errors import ConfigError
from sageserve.live.private import make_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MOST: Final = 1 << 20
"""Bytes of a sealed file."""
_LINE: Final = re.compile(rb"sageserve-sealed 1 ([0-9a-f]{16}) ([0-9a-f]{128})\n")

TrustedKeys: TypeAlias = "Mapping[str, Ed25519PublicKey]"
"""Keys by their names."""


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What was sealed, and by which key."""

    content: bytes
    key: str


@dataclass(frozen=True, slots=True)
class NotUnsealed:
    """A file that may not be believed.

    Args:
        detail: why, in one sentence.
        key: that it names and nobody here trusts; empty: it names none, or the seal is broken.
    """

    detail: str
    key: str = ""


def make_key(folder: Path, name: str) -> tuple[Path, Path, str]:
    """Make a pair of keys: NAME.key, for its user alone, and NAME.pub; and the key's own name.

    Raises:
        ConfigError: one is there already, or the folder cannot be written to.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already, and a key is never written over", hint="choose another name")
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        with os.fdopen(make_file(private), "wb") as out:
            out.write(secret)
        public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}", hint="name a folder that is there") from None
    public.chmod(0o644)
    return private, public, key_name(key.public_key())


def key_name(key: "Ed25519PublicKey") -> str:
    """A key's own name: the beginning of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def private_key(path: Path) -> "Ed25519PrivateKey":
    """Read the key that seals.

    Raises:
        ConfigError: it cannot be read, is no such key, or others may read it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no private key of Ed25519", hint="make one: sageserve hub key NAME")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path} may be read by others, and whoever has it can order", hint=f"chmod 600 {path}")
    return key


def trusted_keys(paths: Iterable[Path]) -> TrustedKeys:
    """Read the keys that are trusted, by their names.

    Raises:
        ConfigError: one cannot be read, or is no such key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = {}
    for path in paths:
        content = _read(path)
        try:
            key = load_pem_public_key(content)
        except ValueError:
            key = None
        if not isinstance(key, Ed25519PublicKey):
            hint = "this is the private one, which stays at the hub: give its .pub" if b"PRIVATE" in content else ""
            raise ConfigError(f"{path} is no public key of Ed25519", hint=hint or "the .pub that sageserve hub key NAME made")
        found[key_name(key)] = key
    return found


def seal(content: bytes, key: "Ed25519PrivateKey") -> bytes:
    """Seal bytes."""
    name = key_name(key.public_key())
    return _first_line(name, key.sign(_signed(name, content)).hex()) + content


def unseal(sealed: bytes, keys: TrustedKeys) -> Unsealed | NotUnsealed:
    """What was sealed by one of the keys, or why it is not to be believed."""
    from cryptography.exceptions import InvalidSignature

    if len(sealed) > MOST:
        return NotUnsealed(f"it has more than {MOST:,} bytes")
    line = _LINE.match(sealed)
    if line is None:
        return NotUnsealed("it does not begin as a sealed file does: is it whole, and one of ours?")
    name, signature = line[1].decode(), bytes.fromhex(line[2].decode())
    if (key := keys.get(name)) is None:
        return NotUnsealed(f"it is sealed by key {name}, and trusted here is {' and '.join(keys) or 'none'}", name)
    content = sealed[line.end() :]
    try:
        key.verify(signature, _signed(name, content))
    except InvalidSignature:
        return NotUnsealed(f"the seal of key {name} is broken: somebody changed the file, or it is not whole")
    return Unsealed(content, name)


def _first_line(name: str, signature: str) -> bytes:
    return f"sageserve-sealed 1 {name} {signature}\n".encode()


def _signed(name: str, content: bytes) -> bytes:
    return f"sageserve-sealed 1 {name}\n".encode() + content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read: {error.strerror}", hint="make one: sageserve hub key NAME") from None
