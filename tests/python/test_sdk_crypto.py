"""CryptographyClient, and the service's side of every RSA and EC algorithm, held against a library of other hands.

The SDK does with the public key what it can do at home. `Remote` asks the service for every operation, through the same
SDK pipeline.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.keyvault.keys.crypto import (
    CryptographyClient,
    EncryptionAlgorithm,
    KeyVaultRSAPrivateKey,
    KeyVaultRSAPublicKey,
    KeyWrapAlgorithm,
    SignatureAlgorithm,
)
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from checks import inner_code, local_public_key, now, refused
from conftest import clients_of
from harness import API_VERSION, Place, b64url, unb64url

everywhere = pytest.mark.everywhere

HASHES: dict[str, tuple[Callable[[bytes], Any], hashes.HashAlgorithm]] = {
    "256": (hashlib.sha256, hashes.SHA256()),
    "384": (hashlib.sha384, hashes.SHA384()),
    "512": (hashlib.sha512, hashes.SHA512()),
}
RSA_SIGN = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
EC_SIGN = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "ES256K": "P-256K"}
RSA_ENCRYPT = ["RSA-OAEP", "RSA-OAEP-256", "RSA1_5"]


class Remote:
    """Every operation of a key at the service."""

    def __init__(self, keys: KeyClient, key: KeyVaultKey):
        self.keys, self.key = keys, key

    def ask(self, operation: str, **body: Any) -> dict[str, Any]:
        body = {name: b64url(value) if isinstance(value, bytes) else value for name, value in body.items()}
        url = f"{self.key.id}/{operation}"
        reply = self.keys.send_request(HttpRequest("POST", url, params={"api-version": API_VERSION}, json=body))
        reply.raise_for_status()
        return reply.json()

    def value(self, operation: str, alg: str, value: bytes) -> bytes:
        answer = self.ask(operation, alg=alg, value=value)
        assert answer["kid"] == self.key.id
        return unb64url(answer["value"])

    def verify(self, alg: str, digest: bytes, signature: bytes) -> bool:
        answer = self.ask("verify", alg=alg, digest=digest, value=signature)["value"]
        assert isinstance(answer, bool)
        return answer


def hash_of(alg: str) -> tuple[Callable[[bytes], Any], hashes.HashAlgorithm]:
    return HASHES[alg.removesuffix("K")[-3:]]


def check_locally(key: KeyVaultKey, alg: str, digest: bytes, signature: bytes) -> None:
    """Raises unless the signature is right, by the rules of RFC 7518."""
    public, hash_kind = local_public_key(key), hash_of(alg)[1]
    if alg.startswith("RS"):
        public.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(hash_kind))
    elif alg.startswith("PS"):
        pss = padding.PSS(padding.MGF1(hash_kind), salt_length=hash_kind.digest_size)
        public.verify(signature, digest, pss, utils.Prehashed(hash_kind))
    else:
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        public.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hash_kind)))


def padding_of(alg: str) -> padding.AsymmetricPadding:
    if alg == "RSA1_5":
        return padding.PKCS1v15()
    hash_kind = hashes.SHA256() if alg == "RSA-OAEP-256" else hashes.SHA1()  # noqa: S303 (the algorithm's own)
    return padding.OAEP(padding.MGF1(hash_kind), hash_kind, None)


@pytest.fixture
def rsa(keys: KeyClient, name: str) -> KeyVaultKey:
    return keys.create_rsa_key(name, size=2048)


# --- sign and verify --------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("alg", RSA_SIGN)
def test_rsa_signatures(keys: KeyClient, rsa: KeyVaultKey, alg: str) -> None:
    digest = hash_of(alg)[0](os.urandom(100)).digest()
    client = keys.get_cryptography_client(rsa.name)
    result = client.sign(SignatureAlgorithm(alg), digest)
    assert (result.key_id, result.algorithm, len(result.signature)) == (rsa.id, alg, 256)
    check_locally(rsa, alg, digest, result.signature)
    assert client.verify(SignatureAlgorithm(alg), digest, result.signature).is_valid

    remote = Remote(keys, rsa)
    assert remote.verify(alg, digest, result.signature) is True
    check_wrong_signatures(remote, alg, digest, result.signature)
    # PKCS#1 v1.5 has one signature for one digest, PSS a fresh salt for each.
    again = client.sign(SignatureAlgorithm(alg), digest).signature
    assert (again == result.signature) == alg.startswith("RS")


@everywhere
@pytest.mark.parametrize(("alg", "curve"), EC_SIGN.items())
def test_ec_signatures(keys: KeyClient, name: str, alg: str, curve: str) -> None:
    key = keys.create_ec_key(name, curve=curve)
    width = {"P-256": 64, "P-384": 96, "P-521": 132, "P-256K": 64}[curve]
    client, remote = keys.get_cryptography_client(name), Remote(keys, key)
    # Often, for a width that depends on leading zeros shows in one of 128.
    for _ in range(20):
        digest = hash_of(alg)[0](os.urandom(100)).digest()
        signature = client.sign(SignatureAlgorithm(alg), digest).signature
        assert len(signature) == width, "r and s at their full width, never DER"
        check_locally(key, alg, digest, signature)
        assert remote.verify(alg, digest, signature) is True
    check_wrong_signatures(remote, alg, digest, signature)


def check_wrong_signatures(remote: Remote, alg: str, digest: bytes, signature: bytes) -> None:
    """A wrong signature is an answer, not an error, whatever is wrong with it."""
    for wrong in (
        signature[:-1] + bytes([signature[-1] ^ 1]),
        bytes([signature[0] ^ 0x40]) + signature[1:],
        signature[:-1],
        signature + b"\0",
        b"\0" * len(signature),
        b"\xff" * len(signature),
        b"x",
    ):
        assert remote.verify(alg, digest, wrong) is False, wrong.hex()
    assert remote.verify(alg, bytes([digest[0] ^ 1]) + digest[1:], signature) is False
    with pytest.raises(InvalidSignature):
        check_locally(remote.key, alg, bytes([digest[0] ^ 1]) + digest[1:], signature)


@pytest.mark.parametrize("size", [3072, 4096])
def test_signatures_of_longer_rsa_keys(keys: KeyClient, name: str, size: int) -> None:
    key = keys.create_rsa_key(name, size=size)
    for alg in ("RS512", "PS512"):
        digest = hash_of(alg)[0](b"long").digest()
        signature = keys.get_cryptography_client(name).sign(SignatureAlgorithm(alg), digest).signature
        assert len(signature) == size // 8
        check_locally(key, alg, digest, signature)


def test_rsnull_pads_what_it_gets(keys: KeyClient, rsa: KeyVaultKey) -> None:
    remote, public = Remote(keys, rsa), local_public_key(rsa)
    for raw in (b"raw", b"", os.urandom(245)):
        signature = remote.value("sign", "RSNULL", raw)
        assert public.recover_data_from_signature(signature, padding.PKCS1v15(), None) == raw
        assert remote.verify("RSNULL", raw, signature) is True
        assert remote.verify("RSNULL", raw[:-1] + b"!", signature) is False
    with refused(400, "BadParameter"):
        remote.value("sign", "RSNULL", os.urandom(246))


@everywhere
@pytest.mark.parametrize("alg", RSA_SIGN + list(EC_SIGN))
def test_digests_of_the_wrong_length(keys: KeyClient, names: Callable[[], str], alg: str) -> None:
    key = keys.create_ec_key(names(), curve=EC_SIGN[alg]) if alg in EC_SIGN else keys.create_rsa_key(names())
    remote, right = Remote(keys, key), hash_of(alg)[1].digest_size
    for length in (0, 1, right - 1, right + 1, 100):
        text = f"Invalid length of 'value': {length} bytes. {alg} requires {right} bytes, encoded with base64url."
        with refused(400, "BadParameter", text):
            remote.value("sign", alg, b"d" * length)
        with refused(400, "BadParameter"):
            remote.verify(alg, b"d" * length, b"s" * 64)


@everywhere
def test_algorithms_of_other_keys(keys: KeyClient, names: Callable[[], str], place: Place) -> None:
    ec_key, rsa_key = keys.create_ec_key(names(), curve="P-256K"), keys.create_rsa_key(names())
    text = (
        f"Key and signing algorithm are incompatible. Key {ec_key.id} uses curve 'P-256K', "
        "and algorithm 'ES256' can only be used with curve 'P-256'."
    )
    with refused(400, "BadParameter", text):
        Remote(keys, ec_key).value("sign", "ES256", b"d" * 32)
    for key, alg in ((rsa_key, "ES256"), (ec_key, "RS256"), (ec_key, "PS512"), (rsa_key, "HS256"), (ec_key, "HS512")):
        with refused(400, "BadParameter"):
            Remote(keys, key).value("sign", alg, b"d" * hash_of(alg)[1].digest_size)
    for key, alg in ((rsa_key, "A128KW"), (rsa_key, "A256GCM"), (rsa_key, "CKM_AES_KEY_WRAP")):
        for operation in ("encrypt", "decrypt", "wrapkey", "unwrapkey"):
            with refused(400, "BadParameter"):
                Remote(keys, key).value(operation, alg, b"d" * 32)
    for unknown in ("RS1", "none", "", "rs256", "ES256 "):
        with refused(400, "BadParameter"):
            Remote(keys, rsa_key).value("sign", unknown, b"d" * 32)
    # EC keys neither encrypt nor wrap; their key_ops say so first.
    for operation in ("encrypt", "decrypt", "wrapkey", "unwrapkey"):
        with refused(403, "Forbidden") as caught:
            Remote(keys, ec_key).value(operation, "RSA-OAEP", b"d")
        assert inner_code(caught) == "KeyOperationForbidden"


# --- encrypt, decrypt, wrap, unwrap -----------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("alg", RSA_ENCRYPT)
def test_encryption(keys: KeyClient, rsa: KeyVaultKey, alg: str) -> None:
    client, remote, public = keys.get_cryptography_client(rsa.name), Remote(keys, rsa), local_public_key(rsa)
    longest = {"RSA-OAEP": 256 - 42, "RSA-OAEP-256": 256 - 66, "RSA1_5": 256 - 11}[alg]
    for plain in (b"x", b"", b"\0" * 16, os.urandom(longest)):
        # Ours, the SDK's and the library's ciphertexts open at the service alike.
        for sealed in (
            remote.value("encrypt", alg, plain),
            client.encrypt(EncryptionAlgorithm(alg), plain).ciphertext,
            public.encrypt(plain, padding_of(alg)),
        ):
            assert len(sealed) == 256
            opened = client.decrypt(EncryptionAlgorithm(alg), sealed)
            assert (opened.plaintext, opened.algorithm, opened.key_id) == (plain, alg, rsa.id)
    assert remote.value("encrypt", alg, b"x") != remote.value("encrypt", alg, b"x")
    with refused(400, "BadParameter"):
        remote.value("encrypt", alg, os.urandom(longest + 1))


@everywhere
@pytest.mark.parametrize("alg", RSA_ENCRYPT)
def test_key_wrapping(keys: KeyClient, rsa: KeyVaultKey, alg: str) -> None:
    client, remote = keys.get_cryptography_client(rsa.name), Remote(keys, rsa)
    secret = os.urandom(32)
    for wrapped in (
        remote.value("wrapkey", alg, secret),
        client.wrap_key(KeyWrapAlgorithm(alg), secret).encrypted_key,
        local_public_key(rsa).encrypt(secret, padding_of(alg)),
    ):
        opened = client.unwrap_key(KeyWrapAlgorithm(alg), wrapped)
        assert (opened.key, opened.algorithm, opened.key_id) == (secret, alg, rsa.id)
    # The two pairs differ in permission only.
    assert remote.value("decrypt", alg, remote.value("wrapkey", alg, secret)) == secret


@everywhere
@pytest.mark.parametrize("operation", ["decrypt", "unwrapkey"])
def test_what_does_not_open_looks_alike(keys: KeyClient, rsa: KeyVaultKey, operation: str) -> None:
    remote, public = Remote(keys, rsa), local_public_key(rsa)
    numbers = public.public_numbers()
    texts = set()
    for alg in ("RSA-OAEP", "RSA-OAEP-256"):
        sealed = public.encrypt(b"secret", padding_of(alg))
        for bad in (
            bytes([sealed[0] ^ 1]) + sealed[1:],
            sealed[:-1],
            sealed + b"\0",
            b"",
            b"\0" * 256,
            b"\xff" * 256,
            numbers.n.to_bytes(256, "big"),
            public.encrypt(b"secret", padding_of("RSA-OAEP" if alg == "RSA-OAEP-256" else "RSA-OAEP-256")),
            public.encrypt(b"secret", padding_of("RSA1_5")),
        ):
            with refused(400, "BadParameter") as caught:
                remote.value(operation, alg, bad)
            assert inner_code(caught) is None
            texts.add(caught.value.response.text())
    # No PKCS#1 padding at all: 2^e mod n.
    with refused(400, "BadParameter") as caught:
        remote.value(operation, "RSA1_5", pow(2, numbers.e, numbers.n).to_bytes(256, "big"))
    texts.add(caught.value.response.text())
    assert len(texts) == 1, texts


# --- what a key may do ------------------------------------------------------------------------------------------------


@everywhere
def test_key_operations_are_enforced(keys: KeyClient, names: Callable[[], str]) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "encrypt": {"alg": "RSA-OAEP", "value": b"x"},
        "decrypt": {"alg": "RSA-OAEP", "value": b"x" * 256},
        "sign": {"alg": "RS256", "value": b"d" * 32},
        "verify": {"alg": "RS256", "digest": b"d" * 32, "value": b"s" * 256},
        "wrapKey": {"alg": "RSA-OAEP", "value": b"x"},
        "unwrapKey": {"alg": "RSA-OAEP", "value": b"x" * 256},
    }
    name = names()
    for allowed in bodies:
        key = keys.create_rsa_key(name, key_operations=[allowed])
        for operation, body in bodies.items():
            if operation == allowed:
                # It may do this; that the input is nonsense is another matter.
                try:
                    Remote(keys, key).ask(operation, **body)
                except Exception as error:  # noqa: BLE001
                    assert getattr(error, "status_code", None) == 400, error
                continue
            with refused(403, "Forbidden", f"Operation {operation} is not permitted on this key.") as caught:
                Remote(keys, key).ask(operation, **body)
            assert inner_code(caught) == "KeyOperationForbidden"


def test_a_change_of_key_operations_counts_at_once(keys: KeyClient, rsa: KeyVaultKey) -> None:
    client = keys.get_cryptography_client(rsa.name, key_version=rsa.properties.version)
    for _ in range(5):
        assert client.sign(SignatureAlgorithm.rs256, b"d" * 32).signature
        keys.update_key_properties(rsa.name, key_operations=["verify"])
        with refused(403, "Forbidden") as caught:
            client.sign(SignatureAlgorithm.rs256, b"d" * 32)
        assert inner_code(caught) == "KeyOperationForbidden"
        keys.update_key_properties(rsa.name, key_operations=["sign", "verify"])


def test_operations_on_what_is_not_there(keys: KeyClient, rsa: KeyVaultKey, names: Callable[[], str]) -> None:
    with pytest.raises(ResourceNotFoundError):
        keys.get_cryptography_client(names()).sign(SignatureAlgorithm.rs256, b"d" * 32)
    with pytest.raises(ResourceNotFoundError):
        keys.get_cryptography_client(rsa.name, key_version="0" * 32).sign(SignatureAlgorithm.rs256, b"d" * 32)


def test_each_version_uses_its_own_material(keys: KeyClient, name: str) -> None:
    old, new = keys.create_rsa_key(name), keys.create_rsa_key(name)
    sealed = local_public_key(old).encrypt(b"for the old one", padding_of("RSA-OAEP"))
    assert Remote(keys, old).value("decrypt", "RSA-OAEP", sealed) == b"for the old one"
    with refused(400, "BadParameter"):
        Remote(keys, new).value("decrypt", "RSA-OAEP", sealed)
    signature = keys.get_cryptography_client(name).sign(SignatureAlgorithm.rs256, b"d" * 32).signature
    check_locally(new, "RS256", b"d" * 32, signature)


# --- the rest of the client -------------------------------------------------------------------------------------------


def test_client_from_a_key_and_from_an_id(keys: KeyClient, dev_place: Place, rsa: KeyVaultKey) -> None:
    credential = clients_of(dev_place).credential
    for argument in (rsa, rsa.id, f"{dev_place.url()}/keys/{rsa.name}"):
        with CryptographyClient(argument, credential, **dev_place.sdk()) as client:
            assert client.vault_url == dev_place.url()
            assert client.sign(SignatureAlgorithm.rs256, b"d" * 32).key_id == rsa.id
            assert client.key_id == rsa.id


def test_from_jwk_needs_no_service(keys: KeyClient, rsa: KeyVaultKey) -> None:
    client = CryptographyClient.from_jwk(rsa.key)
    sealed = client.encrypt(EncryptionAlgorithm.rsa_oaep_256, b"at home").ciphertext
    opened = keys.get_cryptography_client(rsa.name).decrypt(EncryptionAlgorithm.rsa_oaep_256, sealed)
    assert opened.plaintext == b"at home"
    with pytest.raises(NotImplementedError):
        client.sign(SignatureAlgorithm.rs256, b"d" * 32)


def test_rsa_key_interfaces(keys: KeyClient, rsa: KeyVaultKey) -> None:
    client = keys.get_cryptography_client(rsa.name)
    private, public = client.create_rsa_private_key(), client.create_rsa_public_key()
    assert isinstance(private, KeyVaultRSAPrivateKey) and isinstance(public, KeyVaultRSAPublicKey)
    assert (private.key_size, public.public_numbers()) == (2048, local_public_key(rsa).public_numbers())
    message = b"signed through the library's own interface"
    signature = private.sign(message, padding.PKCS1v15(), hashes.SHA256())
    local_public_key(rsa).verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert private.decrypt(public.encrypt(b"salt", oaep), oaep) == b"salt"


def test_send_request(keys: KeyClient, rsa: KeyVaultKey) -> None:
    client = keys.get_cryptography_client(rsa.name)
    request = HttpRequest(
        "POST",
        f"{rsa.id}/sign",
        params={"api-version": API_VERSION},
        json={"alg": "RS256", "value": b64url(b"d" * 32)},
    )
    reply = client.send_request(request)
    assert reply.status_code == 200
    check_locally(rsa, "RS256", b"d" * 32, unb64url(reply.json()["value"]))


def test_the_sdk_heeds_times_too(keys: KeyClient, dev_place: Place, name: str) -> None:
    """It reads nbf and exp from our answer, and refuses at home what the service would refuse."""
    key = keys.create_rsa_key(name, expires_on=now() - timedelta(minutes=1))
    with (
        CryptographyClient(key, clients_of(dev_place).credential, **dev_place.sdk()) as client,
        pytest.raises(ValueError, match="key expired at"),
    ):
        client.encrypt(EncryptionAlgorithm.rsa_oaep, b"x")
