"""KeyClient beyond the quickstart: import, rotation, symmetric and HSM kinds, and what a vault refuses."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.keyvault.keys import (
    JsonWebKey,
    KeyClient,
    KeyReleasePolicy,
    KeyRotationLifetimeAction,
    KeyRotationPolicy,
    KeyRotationPolicyAction,
    KeyVaultKey,
)
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from azure.keyvault.keys.crypto import EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.padding import PKCS7

from checks import CURVES, inner_code, local_public_key, now, refused
from conftest import clients_of
from harness import Place, b64url, unb64url
from test_sdk_crypto import RSA_ENCRYPT, Remote, check_locally, hash_of, padding_of

everywhere = pytest.mark.everywhere


def big(number: int, width: int = 0) -> bytes:
    return number.to_bytes(max(width, (number.bit_length() + 7) // 8), "big")


def rsa_jwk(key: rsa.RSAPrivateKey, lead: bytes = b"", only: tuple[str, ...] | None = None) -> JsonWebKey:
    numbers = key.private_numbers()
    members = {
        "n": numbers.public_numbers.n,
        "e": numbers.public_numbers.e,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    return JsonWebKey(kty="RSA", **{k: lead + big(v) for k, v in members.items() if only is None or k in only})


def ec_jwk(key: ec.EllipticCurvePrivateKey, curve: str, lead: bytes = b"") -> JsonWebKey:
    numbers, width = key.private_numbers(), {"P-256": 32, "P-384": 48, "P-521": 66, "P-256K": 32}[curve]
    x, y = numbers.public_numbers.x, numbers.public_numbers.y
    return JsonWebKey(
        kty="EC", crv=curve, x=lead + big(x, width), y=lead + big(y, width), d=lead + big(numbers.private_value, width)
    )


# --- import ----------------------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("lead", [b"", b"\0"], ids=["minimal", "leading-zero"])
def test_import_rsa(keys: KeyClient, place: Place, name: str, lead: bytes) -> None:
    private = rsa.generate_private_key(65537, 2048)
    ends = now() + timedelta(days=1)
    key = keys.import_key(name, rsa_jwk(private, lead), tags={"from": "home"}, expires_on=ends)
    assert (key.key_type, key.id) == ("RSA", f"{place.url()}/keys/{name}/{key.properties.version}")
    assert key.key_operations == ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
    assert (key.properties.tags, key.properties.expires_on) == ({"from": "home"}, ends)
    assert local_public_key(key).public_numbers() == private.public_key().public_numbers()
    assert key.key.d is None and key.key.p is None
    client = keys.get_cryptography_client(name)
    check_locally(key, "PS256", b"d" * 32, client.sign(SignatureAlgorithm.ps256, b"d" * 32).signature)
    for alg in RSA_ENCRYPT:
        sealed = private.public_key().encrypt(b"salt", padding_of(alg))
        assert client.decrypt(EncryptionAlgorithm(alg), sealed).plaintext == b"salt"
        assert private.decrypt(Remote(keys, key).value("encrypt", alg, b"salt"), padding_of(alg)) == b"salt"


def test_import_rsa_without_the_members_that_can_be_derived(keys: KeyClient, name: str) -> None:
    private = rsa.generate_private_key(65537, 2048)
    key = keys.import_key(name, rsa_jwk(private, only=("n", "e", "d")))
    check_locally(key, "RS256", b"d" * 32, keys.get_cryptography_client(name).sign("RS256", b"d" * 32).signature)


@pytest.mark.parametrize("size", [3072, 4096])
def test_import_longer_rsa(keys: KeyClient, name: str, size: int) -> None:
    private = rsa.generate_private_key(65537, size)
    key = keys.import_key(name, rsa_jwk(private))
    check_locally(key, "RS512", b"d" * 64, keys.get_cryptography_client(name).sign("RS512", b"d" * 64).signature)


@everywhere
@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "ES256K"])
def test_import_ec(keys: KeyClient, name: str, alg: str) -> None:
    curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "ES256K": "P-256K"}[alg]
    private = ec.generate_private_key(CURVES[curve])
    key = keys.import_key(name, ec_jwk(private, curve))
    assert (key.key_type, key.key.crv, key.key_operations) == ("EC", curve, ["sign", "verify"])
    assert local_public_key(key).public_numbers() == private.public_key().public_numbers()
    digest = b"d" * hash_of(alg)[1].digest_size
    check_locally(key, alg, digest, keys.get_cryptography_client(name).sign(SignatureAlgorithm(alg), digest).signature)
    # What the library signs, the service verifies.
    from cryptography.hazmat.primitives.asymmetric import utils

    r, s = utils.decode_dss_signature(private.sign(digest, ec.ECDSA(utils.Prehashed(hash_of(alg)[1]))))
    width = (CURVES[curve].key_size + 7) // 8
    assert Remote(keys, key).verify(alg, digest, big(r, width) + big(s, width)) is True


def test_import_ec_with_leading_zeros(keys: KeyClient, name: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = keys.import_key(name, ec_jwk(private, "P-256", b"\0"))
    assert (len(key.key.x), len(key.key.y)) == (32, 32)
    assert local_public_key(key).public_numbers() == private.public_key().public_numbers()


def test_import_with_operations_and_disabled(keys: KeyClient, name: str) -> None:
    jwk = ec_jwk(ec.generate_private_key(ec.SECP256R1()), "P-256")
    jwk.key_ops = ["sign"]
    key = keys.import_key(name, jwk, enabled=False)
    assert key.key_operations == ["sign"] and key.properties.enabled is False


def test_import_onto_a_name_in_use_makes_a_new_version(keys: KeyClient, name: str) -> None:
    first = keys.create_rsa_key(name)
    second = keys.import_key(name, ec_jwk(ec.generate_private_key(ec.SECP256R1()), "P-256"))
    assert keys.get_key(name).id == second.id != first.id
    keys.begin_delete_key(name).wait(30)
    with pytest.raises(ResourceExistsError) as conflict:
        keys.import_key(name, ec_jwk(ec.generate_private_key(ec.SECP256R1()), "P-256"))
    assert inner_code(conflict) == "ObjectIsDeletedButRecoverable"


def test_import_refuses_what_is_no_key(keys: KeyClient, name: str) -> None:
    private, other = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
    curve_key, other_curve_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def changed(jwk: JsonWebKey, **members: object) -> JsonWebKey:
        for member, value in members.items():
            setattr(jwk, member, value)
        return jwk

    ec_good = ec_jwk(curve_key, "P-256")
    for bad in (
        JsonWebKey(kty="RSA"),
        JsonWebKey(kty="EC", crv="P-256"),
        JsonWebKey(kty="nonsense"),
        rsa_jwk(private, only=("n", "e")),
        changed(rsa_jwk(private), n=rsa_jwk(other).n),
        changed(rsa_jwk(private), p=rsa_jwk(other).p),
        changed(rsa_jwk(private), d=rsa_jwk(other).d),
        changed(rsa_jwk(private), e=b"\2"),
        rsa_jwk(rsa.generate_private_key(65537, 1024)),  # noqa: S505 (too short on purpose)
        changed(ec_jwk(curve_key, "P-256"), d=ec_jwk(other_curve_key, "P-256").d),
        changed(ec_jwk(curve_key, "P-256"), d=None),
        changed(ec_jwk(curve_key, "P-256"), d=b"\0" * 32),
        changed(ec_jwk(curve_key, "P-256"), y=ec_good.x),
        changed(ec_jwk(curve_key, "P-256"), crv="P-384"),
    ):
        with refused(400, "BadParameter"):
            keys.import_key(name, bad)
    with pytest.raises(ResourceNotFoundError):
        keys.get_key(name)


def test_an_imported_key_is_backed_up_like_any(keys: KeyClient, name: str) -> None:
    key = keys.import_key(name, rsa_jwk(rsa.generate_private_key(65537, 2048)))
    blob = keys.backup_key(name)
    keys.begin_delete_key(name).wait(30)
    keys.purge_deleted_key(name)
    assert keys.restore_key_backup(blob).id == key.id
    check_locally(key, "RS256", b"d" * 32, keys.get_cryptography_client(name).sign("RS256", b"d" * 32).signature)


# --- rotation --------------------------------------------------------------------------------------------------------


@everywhere
def test_rotate(keys: KeyClient, names: Callable[[], str]) -> None:
    for make in (
        lambda name: keys.create_rsa_key(name, size=2048, key_operations=["sign"], tags={"a": "b"}),
        lambda name: keys.create_ec_key(name, curve="P-384"),
    ):
        old = make(names())
        new = keys.rotate_key(old.name)
        assert new.properties.version != old.properties.version
        assert (new.key_type, new.key.crv, new.key_operations) == (old.key_type, old.key.crv, old.key_operations)
        assert (new.key.n, new.key.x) != (old.key.n, old.key.x), "fresh material"
        assert new.properties.expires_on is None and new.properties.enabled
        assert keys.get_key(old.name).id == new.id
        assert keys.get_key(old.name, old.properties.version).id == old.id


def test_rotate_refuses(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError):
        keys.rotate_key(name)
    keys.create_ec_key(name)
    keys.begin_delete_key(name).wait(30)
    with pytest.raises((ResourceNotFoundError, ResourceExistsError)):
        keys.rotate_key(name)


@everywhere
def test_rotation_policy(keys: KeyClient, place: Place, name: str) -> None:
    keys.create_ec_key(name)
    default = keys.get_key_rotation_policy(name)
    assert default.id == f"{place.url()}/keys/{name}/rotationpolicy"
    assert default.expires_in is None
    assert [(a.action, a.time_before_expiry, a.time_after_create) for a in default.lifetime_actions] == [
        ("Notify", "P30D", None)
    ]

    actions = [KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P18M")]
    stored = keys.update_key_rotation_policy(name, KeyRotationPolicy(lifetime_actions=actions, expires_in="P2Y"))
    for policy in (stored, keys.get_key_rotation_policy(name)):
        assert policy.id == default.id
        assert policy.expires_in == "P2Y", "in the form given"
        assert [(a.action, a.time_before_expiry, a.time_after_create) for a in policy.lifetime_actions] == [
            ("Rotate", None, "P18M"),
            ("Notify", "P30D", None),
        ], "the default Notify is appended, Rotate comes first"
        assert policy.created_on and policy.updated_on

    rotated = keys.rotate_key(name)
    expected = now() + timedelta(days=730)
    assert abs(rotated.properties.expires_on - expected) < timedelta(days=2), "now and two years"

    notify = KeyRotationLifetimeAction(KeyRotationPolicyAction.notify, time_before_expiry="P40D")
    rotate = KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_before_expiry="P50D")
    stored = keys.update_key_rotation_policy(
        name, KeyRotationPolicy(), lifetime_actions=[notify, rotate], expires_in="P90D"
    )
    assert [(a.action, a.time_before_expiry) for a in stored.lifetime_actions] == [
        ("Rotate", "P50D"),
        ("Notify", "P40D"),
    ]


def test_rotation_policy_refuses(keys: KeyClient, name: str) -> None:
    rotate, notify = KeyRotationPolicyAction.rotate, KeyRotationPolicyAction.notify
    act = KeyRotationLifetimeAction
    with pytest.raises(ResourceNotFoundError):
        keys.get_key_rotation_policy(name)
    with pytest.raises(ResourceNotFoundError):
        keys.update_key_rotation_policy(
            name, KeyRotationPolicy(lifetime_actions=[act(rotate, time_after_create="P90D")])
        )
    keys.create_ec_key(name)
    before = keys.get_key_rotation_policy(name)
    for actions, expires in (
        ([act(rotate, time_after_create="P90D"), act(rotate, time_after_create="P91D")], None),
        ([act(notify, time_before_expiry="P30D"), act(notify, time_before_expiry="P31D")], "P90D"),
        ([act(notify, time_after_create="P30D")], "P90D"),
        ([act(rotate, time_after_create="P30D", time_before_expiry="P30D")], "P90D"),
        ([act(rotate)], "P90D"),
        ([act(rotate, time_before_expiry="P30D")], None),
        ([act(rotate, time_after_create="P6D")], None),
        ([act(rotate, time_after_create="P88D")], "P90D"),
        ([act("Dance", time_after_create="P30D")], None),
        ([act(rotate, time_after_create="30 days")], None),
        ([act(rotate, time_after_create="P1M")], "P27D"),
    ):
        with refused(400, "BadParameter"):
            keys.update_key_rotation_policy(name, KeyRotationPolicy(), lifetime_actions=actions, expires_in=expires)
    after = keys.get_key_rotation_policy(name)
    assert (after.expires_in, len(after.lifetime_actions)) == (before.expires_in, len(before.lifetime_actions))


def test_an_empty_rotation_policy_is_the_default_again(dev_place: Place, keys: KeyClient, name: str) -> None:
    keys.create_ec_key(name)
    actions = [KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P90D")]
    keys.update_key_rotation_policy(name, KeyRotationPolicy(), lifetime_actions=actions)
    body = dev_place.ok("PUT", f"/keys/{name}/rotationpolicy", {"lifetimeActions": []})
    assert body["lifetimeActions"] == [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}]
    assert [a.action for a in keys.get_key_rotation_policy(name).lifetime_actions] == ["Notify"]


# --- symmetric keys and HSM kinds -------------------------------------------------------------------------------------


def test_hsm_kinds_in_dev(keys: KeyClient, names: Callable[[], str]) -> None:
    """dev holds them in software, and says so."""
    for key, kind in (
        (keys.create_rsa_key(names(), hardware_protected=True), "RSA-HSM"),
        (keys.create_ec_key(names(), curve="P-384", hardware_protected=True), "EC-HSM"),
        (keys.create_oct_key(names(), size=256, hardware_protected=True), "oct-HSM"),
    ):
        assert (key.key_type, key.properties.hsm_platform) == (kind, "0")
        assert keys.get_key(key.name).key_type == kind
        for secret in ("k", "d", "p", "q"):
            assert getattr(key.key, secret) is None
    key = keys.import_key(names(), rsa_jwk(rsa.generate_private_key(65537, 2048)), hardware_protected=True)
    assert key.key_type == "RSA-HSM"
    check_locally(key, "RS256", b"d" * 32, keys.get_cryptography_client(key.name).sign("RS256", b"d" * 32).signature)


@pytest.mark.parametrize("node", ["node1", "node2", "node3"])
def test_hsm_kinds_in_a_cluster_need_a_provider(cluster: object, node: str, names: Callable[[], str]) -> None:
    place = cluster.places()[int(node[-1]) - 1]  # type: ignore[attr-defined]
    client = clients_of(place).keys
    for make in (client.create_rsa_key, client.create_ec_key, client.create_oct_key):
        with pytest.raises(HttpResponseError) as caught:
            make(names(), hardware_protected=True)
        assert caught.value.status_code in (400, 403)
        assert "hardware" in caught.value.error.message.lower(), "a clear error"


@pytest.mark.parametrize("size", [None, 128, 192, 256])
def test_create_oct(keys: KeyClient, name: str, size: int | None) -> None:
    key = keys.create_oct_key(name, size=size, hardware_protected=True)
    assert set(key.key_operations) == {"encrypt", "decrypt", "wrapKey", "unwrapKey"}
    jwk = {k: v for k, v in vars(key.key).items() if v is not None}
    assert set(jwk) == {"kid", "kty", "key_ops"}, "a symmetric key shows nothing else"
    bits = size or 256
    client = keys.get_cryptography_client(name)
    result = client.encrypt(EncryptionAlgorithm(f"A{bits}GCM"), b"x")
    assert (
        client.decrypt(f"A{bits}GCM", result.ciphertext, iv=result.iv, authentication_tag=result.tag).plaintext == b"x"
    )


def test_create_oct_refuses_other_sizes(keys: KeyClient, name: str) -> None:
    for size in (64, 129, 512):
        with refused(400, "BadParameter"):
            keys.create_oct_key(name, size=size, hardware_protected=True)


def symmetric(keys: KeyClient, name: str, material: bytes, operations: list[str] | None = None) -> KeyVaultKey:
    """A symmetric key whose bytes the test knows."""
    jwk = JsonWebKey(kty="oct-HSM", k=material, key_ops=operations or ["encrypt", "decrypt", "wrapKey", "unwrapKey"])
    return keys.import_key(name, jwk, hardware_protected=True)


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_aes_gcm(keys: KeyClient, name: str, bits: int) -> None:
    material = os.urandom(bits // 8)
    remote, alg = Remote(keys, symmetric(keys, name, material)), f"A{bits}GCM"
    for plain, aad in ((b"", b""), (b"hello", b"header"), (os.urandom(1000), b"\0")):
        sealed = remote.ask("encrypt", alg=alg, value=plain, **({"aad": aad} if aad else {}))
        iv, tag, value = (unb64url(sealed[member]) for member in ("iv", "tag", "value"))
        assert (len(iv), len(tag), len(value)) == (12, 16, len(plain))
        assert unb64url(sealed.get("aad") or "") == aad
        decryptor = Cipher(algorithms.AES(material), modes.GCM(iv, tag)).decryptor()
        decryptor.authenticate_additional_data(aad)
        assert decryptor.update(value) + decryptor.finalize() == plain
        good = {"alg": alg, "value": value, "iv": iv, "tag": tag, **({"aad": aad} if aad else {})}
        assert unb64url(remote.ask("decrypt", **good)["value"]) == plain
        for change in ({"tag": b"\0" * 16}, {"iv": b"\0" * 12}, {"aad": b"other"}, {"value": value + b"!"}):
            with refused(400, "BadParameter"):
                remote.ask("decrypt", **{**good, **change})
    ivs = {remote.ask("encrypt", alg=alg, value=b"x")["iv"] for _ in range(30)}
    assert len(ivs) == 30
    wrong = {128: 256, 192: 128, 256: 192}[bits]
    with refused(400, "BadParameter"):
        remote.ask("encrypt", alg=f"A{wrong}GCM", value=b"x")


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_aes_cbc(keys: KeyClient, name: str, bits: int) -> None:
    material, iv = os.urandom(bits // 8), os.urandom(16)
    remote = Remote(keys, symmetric(keys, name, material))
    for plain in (b"", b"x", b"y" * 15, b"z" * 16, os.urandom(100)):
        padder = PKCS7(128).padder()
        padded = padder.update(plain) + padder.finalize()
        encryptor = Cipher(algorithms.AES(material), modes.CBC(iv)).encryptor()
        expected = encryptor.update(padded) + encryptor.finalize()
        sealed = remote.ask("encrypt", alg=f"A{bits}CBCPAD", value=plain, iv=iv)
        assert (unb64url(sealed["value"]), unb64url(sealed["iv"])) == (expected, iv)
        opened = remote.ask("decrypt", alg=f"A{bits}CBCPAD", value=expected, iv=iv)
        assert unb64url(opened["value"]) == plain
    # Zero padding is not taken off again.
    sealed = unb64url(remote.ask("encrypt", alg=f"A{bits}CBC", value=b"short", iv=iv)["value"])
    assert unb64url(remote.ask("decrypt", alg=f"A{bits}CBC", value=sealed, iv=iv)["value"]) == b"short" + b"\0" * 11
    for bad in ({"iv": b"\0" * 15}, {"value": b"x" * 17}, {"value": b""}):
        with refused(400, "BadParameter"):
            remote.ask("decrypt", **{"alg": f"A{bits}CBCPAD", "value": b"x" * 16, "iv": iv, **bad})


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_aes_key_wrap(keys: KeyClient, name: str, bits: int) -> None:
    material, secret = os.urandom(bits // 8), os.urandom(32)
    key = symmetric(keys, name, material)
    remote, client = Remote(keys, key), keys.get_cryptography_client(name)
    # Through the SDK, by the CKM name only: version 4.11 wraps by `A256KW` at home, under a random key if the
    # service does not show it `k`, which none does.
    wrapped = client.wrap_key(KeyWrapAlgorithm("CKM_AES_KEY_WRAP"), secret).encrypted_key
    assert wrapped == keywrap.aes_key_wrap(material, secret)
    assert client.unwrap_key(KeyWrapAlgorithm("CKM_AES_KEY_WRAP"), wrapped).key == secret
    for alg in (f"A{bits}KW", "CKM_AES_KEY_WRAP"):
        assert remote.value("wrapkey", alg, secret) == wrapped
        assert remote.value("unwrapkey", alg, wrapped) == secret
        for bad in (b"x" * 7, b"x" * 8, b"x" * 17):
            with refused(400, "BadParameter"):
                remote.value("wrapkey", alg, bad)
        with refused(400, "BadParameter"):
            remote.value("unwrapkey", alg, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    for odd in (b"1", b"seven b", os.urandom(33)):
        wrapped = remote.value("wrapkey", "CKM_AES_KEY_WRAP_PAD", odd)
        assert wrapped == keywrap.aes_key_wrap_with_padding(material, odd)
        assert remote.value("unwrapkey", "CKM_AES_KEY_WRAP_PAD", wrapped) == odd


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_hmac(keys: KeyClient, name: str, alg: str) -> None:
    material = os.urandom(32)
    remote = Remote(keys, symmetric(keys, name, material, ["sign", "verify"]))
    digest = hash_of(alg)[0](b"message").digest()
    signature = remote.value("sign", alg, digest)
    assert signature == hmac.new(material, digest, getattr(hashlib, "sha" + alg[2:])).digest()
    assert remote.verify(alg, digest, signature) is True
    assert remote.verify(alg, digest, signature[:-1] + bytes([signature[-1] ^ 1])) is False


# --- bring your own key -----------------------------------------------------------------------------------------------


def test_byok(keys: KeyClient, dev_place: Place, names: Callable[[], str]) -> None:
    exchange = keys.create_rsa_key(names(), size=2048, hardware_protected=True, key_operations=["import"])
    private = rsa.generate_private_key(65537, 2048)
    der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ephemeral = os.urandom(32)
    oaep = padding.OAEP(padding.MGF1(SHA1()), SHA1(), None)  # noqa: S303 (the format's own)
    sealed = local_public_key(exchange).encrypt(ephemeral, oaep) + keywrap.aes_key_wrap_with_padding(ephemeral, der)
    blob = {
        "schema_version": "1.0.0",
        "header": {"kid": exchange.id, "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"},
        "ciphertext": b64url(sealed),
        "generator": "tests",
    }

    def send(blob: dict, name: str):  # noqa: ANN202
        key = {"kty": "RSA-HSM", "key_hsm": b64url(json.dumps(blob).encode())}
        return dev_place.call("PUT", f"/keys/{name}", {"key": key})

    name = names()
    reply = send(blob, name)
    assert reply.status == 200, reply
    key = keys.get_key(name)
    assert key.key_type == "RSA-HSM"
    assert local_public_key(key).public_numbers() == private.public_key().public_numbers()
    check_locally(key, "RS256", b"d" * 32, keys.get_cryptography_client(name).sign("RS256", b"d" * 32).signature)
    # People write the id by hand.
    for spelled in (exchange.id.replace("demo.", "Demo."), exchange.id.replace("/keys/", ":443/Keys/")):
        reply = send({**blob, "header": {**blob["header"], "kid": spelled}}, names())
        assert reply.status == 200, (spelled, reply)

    plain = keys.create_rsa_key(names(), hardware_protected=True)
    for bad in (
        {**blob, "ciphertext": b64url(sealed[:-1])},
        {**blob, "ciphertext": b64url(sealed[:-1] + bytes([sealed[-1] ^ 1]))},
        {**blob, "header": {**blob["header"], "kid": plain.id}},
        {**blob, "header": {**blob["header"], "kid": exchange.id.replace("demo", "second")}},
        {**blob, "header": {**blob["header"], "enc": "none"}},
        {},
    ):
        refusal = send(bad, names())
        assert (refusal.status, refusal.error["code"]) == (400, "BadParameter"), bad


def test_a_key_exchange_key_does_nothing_else(keys: KeyClient, name: str) -> None:
    key = keys.create_rsa_key(name, hardware_protected=True, key_operations=["import"])
    with refused(403, "Forbidden") as caught:
        Remote(keys, key).value("decrypt", "RSA-OAEP", b"x" * 256)
    assert inner_code(caught) == "KeyOperationForbidden"
    with refused(400, "BadParameter"):
        keys.create_rsa_key(name, hardware_protected=True, key_operations=["import", "sign"])


# --- what a vault refuses ---------------------------------------------------------------------------------------------


@everywhere
def test_random_bytes_are_a_managed_hsm_matter(keys: KeyClient, place: Place) -> None:
    with pytest.raises(HttpResponseError) as caught:
        keys.get_random_bytes(16)
    assert caught.value.status_code in (400, 404)


@everywhere
def test_attestation_is_refused(keys: KeyClient, name: str) -> None:
    keys.create_ec_key(name)
    with pytest.raises(HttpResponseError) as caught:
        keys.get_key_attestation(name)
    assert caught.value.status_code in (400, 404)


@everywhere
def test_release_of_a_key_that_may_not_leave(keys: KeyClient, name: str) -> None:
    keys.create_rsa_key(name)
    with pytest.raises(HttpResponseError) as caught:
        keys.release_key(name, "a.b.c")
    assert caught.value.status_code in (400, 403)


def test_release_policies_need_exportable_keys(keys: KeyClient, name: str) -> None:
    rule = {"authority": "https://attest.example", "allOf": [{"claim": "sdk-test", "equals": "true"}]}
    policy = KeyReleasePolicy(json.dumps({"version": "1.0.0", "anyOf": [rule]}).encode())
    with refused(400, "BadParameter", "AKV.SKR.1005: Non-exportable keys must not have release policy."):
        keys.create_rsa_key(name, hardware_protected=True, release_policy=policy)
    with pytest.raises(HttpResponseError) as caught:
        keys.create_rsa_key(name, hardware_protected=True, exportable=True)
    assert caught.value.status_code == 400
    with pytest.raises(ResourceNotFoundError):
        keys.get_key(name)


def test_an_exportable_key_keeps_its_policy(keys: KeyClient, name: str) -> None:
    data = {
        "version": "1.0.0",
        "anyOf": [{"authority": "https://attest.example", "allOf": [{"claim": "sdk-test", "equals": "true"}]}],
    }
    policy = KeyReleasePolicy(json.dumps(data).encode(), immutable=True)
    key = keys.create_rsa_key(name, hardware_protected=True, exportable=True, release_policy=policy)
    assert key.properties.exportable is True and "export" in key.key_operations
    stored = keys.get_key(name).properties.release_policy
    assert json.loads(stored.encoded_policy) == data and stored.immutable is True
    with refused(400, "BadParameter", "AKV.SKR.1020: Immutable Key Release Policy cannot be modified."):
        keys.update_key_properties(name, release_policy=KeyReleasePolicy(json.dumps(data).encode()))


# --- the same through aiohttp -----------------------------------------------------------------------------------------


@everywhere
async def test_async(akeys: AsyncKeyClient, name: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    imported = await akeys.import_key(name, ec_jwk(private, "P-256"))
    assert local_public_key(imported).public_numbers() == private.public_key().public_numbers()
    actions = [KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P30D")]
    policy = await akeys.update_key_rotation_policy(
        name, KeyRotationPolicy(), lifetime_actions=actions, expires_in="P90D"
    )
    assert policy.expires_in == "P90D"
    assert (await akeys.get_key_rotation_policy(name)).lifetime_actions[0].time_after_create == "P30D"
    rotated = await akeys.rotate_key(name)
    assert abs(rotated.properties.expires_on - now() - timedelta(days=90)) < timedelta(minutes=2)
    for refusal in (akeys.get_random_bytes(8), akeys.release_key(name, "a.b.c"), akeys.get_key_attestation(name)):
        with pytest.raises(HttpResponseError) as caught:
            await refusal
        assert caught.value.status_code in (400, 403, 404)


async def test_async_oct(akeys: AsyncKeyClient, name: str) -> None:
    key = await akeys.create_oct_key(name, size=192, hardware_protected=True)
    assert key.key_type == "oct-HSM"
    crypto = akeys.get_cryptography_client(name)
    # Not `A192KW`: see test_aes_key_wrap.
    by = KeyWrapAlgorithm("CKM_AES_KEY_WRAP_PAD")
    wrapped = await crypto.wrap_key(by, b"k" * 25)
    other = akeys.get_cryptography_client(name)
    assert (await other.unwrap_key(by, wrapped.encrypted_key)).key == b"k" * 25
