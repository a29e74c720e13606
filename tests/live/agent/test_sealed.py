"""Sealed files: no byte of them can be another, and keys are kept as keys are."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sageserve.base.errors import ConfigError
from sageserve.live.agent.sealed import MOST, NotUnsealed, Unsealed, key_name, make_key, private_key, seal, trusted_keys, unseal
from tests.live.agent.stage import OTHER, SECRET, plan, sealed, trusted


def test_what_was_sealed_is_unsealed_and_no_byte_of_it_can_be_another() -> None:
    file = sealed(plan())
    opened = unseal(file, trusted())
    assert isinstance(opened, Unsealed)
    assert (file.endswith(b"\n" + opened.content), opened.key) == (True, key_name(SECRET.public_key()))
    for at in range(len(file)):
        for bit in (1, 0x20):
            changed = bytearray(file)
            changed[at] ^= bit
            assert isinstance(unseal(bytes(changed), trusted()), NotUnsealed), (at, bit)
    for cut in range(len(file)):
        assert isinstance(unseal(file[:cut], trusted()), NotUnsealed), cut
    assert isinstance(unseal(file + b"\n", trusted()), NotUnsealed)
    assert isinstance(unseal(b"\n" + file, trusted()), NotUnsealed)


def test_a_seal_belongs_to_its_content_and_its_key() -> None:
    one, two = sealed(plan(4)), sealed(plan(5))
    mixed = unseal(one.partition(b"\n")[0] + b"\n" + two.partition(b"\n")[2], trusted())
    assert isinstance(mixed, NotUnsealed)
    foreign = unseal(sealed(plan(), OTHER), trusted())
    assert isinstance(foreign, NotUnsealed)
    assert (foreign.key, key_name(SECRET.public_key()) in foreign.detail) == (key_name(OTHER.public_key()), True)
    claimed = sealed(plan(), OTHER).replace(key_name(OTHER.public_key()).encode(), key_name(SECRET.public_key()).encode(), 1)
    assert isinstance(unseal(claimed, trusted()), NotUnsealed)
    content = one.partition(b"\n")[2]
    bare = f"sageserve-sealed 1 {key_name(SECRET.public_key())} {SECRET.sign(content).hex()}\n".encode()
    assert isinstance(unseal(bare + content, trusted()), NotUnsealed)  # what the key has signed for another purpose is no plan
    for key in (SECRET, OTHER):  # while one is put in the place of the other
        assert isinstance(unseal(sealed(plan(), key), trusted(SECRET, OTHER)), Unsealed)
    assert isinstance(unseal(seal(bytes(MOST), SECRET), trusted()), NotUnsealed)


def test_keys_are_made_once_for_their_user_alone_and_others_are_refused(tmp_path: Path) -> None:
    private, public, name = make_key(tmp_path, "hub")
    assert (stat.S_IMODE(private.stat().st_mode), stat.S_IMODE(public.stat().st_mode)) == (0o600, 0o644)
    keys = trusted_keys([public])
    assert list(keys) == [name]
    assert isinstance(unseal(seal(b"words", private_key(private)), keys), Unsealed)
    with pytest.raises(ConfigError, match="never written over"):
        make_key(tmp_path, "hub")
    with pytest.raises(ConfigError, match=r"give its \.pub"):
        trusted_keys([private])
    other = generate_private_key(SECP256R1())
    (tmp_path / "ec.key").write_bytes(other.private_bytes(*_PKCS8))
    (tmp_path / "ec.key").chmod(0o600)
    with pytest.raises(ConfigError, match="no private key"):
        private_key(tmp_path / "ec.key")
    (tmp_path / "ec.pub").write_bytes(other.public_key().public_bytes(*_SPKI))
    with pytest.raises(ConfigError, match="no public key of Ed25519"):
        trusted_keys([tmp_path / "ec.pub"])
    with pytest.raises(ConfigError, match="cannot be read"):
        trusted_keys([tmp_path / "none.pub"])
    private.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others"):
        private_key(private)
    with pytest.raises(ConfigError, match="cannot be written to"):
        make_key(tmp_path / "none", "hub")


_PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_SPKI = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
