"""KeyClient, every method that a vault without certificates needs, as applications call it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.keys import KeyClient, KeyCurveName, KeyOperation, KeyType, KeyVaultKey, KeyVaultKeyIdentifier
from azure.keyvault.keys.crypto import SignatureAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from checks import inner_code, local_public_key, now, refused
from conftest import clients_of
from harness import Place

RSA_OPS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
everywhere = pytest.mark.everywhere


def check_bundle(key: KeyVaultKey, place: Place, name: str, key_type: str) -> None:
    """What holds for every answer that shows a key (contract sections 5, 6 and 10.2)."""
    properties = key.properties
    assert key.name == name
    assert key.key_type == key_type
    assert re.fullmatch("[0-9a-f]{32}", properties.version)
    assert key.id == f"{place.url()}/keys/{name}/{properties.version}"
    assert properties.vault_url == place.url()
    assert abs(properties.created_on - now()) < timedelta(minutes=2)
    assert properties.updated_on >= properties.created_on
    assert properties.recovery_level == "Recoverable+Purgeable"
    assert properties.recoverable_days == 90
    assert properties.hsm_platform == "0"
    assert not properties.managed
    for private in ("d", "dp", "dq", "qi", "p", "q", "k", "t"):
        assert getattr(key.key, private) is None


# --- create ----------------------------------------------------------------------------------------------------------


@everywhere
def test_create_rsa_key(keys: KeyClient, place: Place, name: str) -> None:
    key = keys.create_rsa_key(name, size=2048)
    check_bundle(key, place, name, "RSA")
    assert key.key_operations == RSA_OPS
    assert (len(key.key.n), key.key.e) == (256, b"\x01\x00\x01")
    assert key.key.n[0] != 0
    assert key.properties.enabled is True
    assert key.properties.not_before is None and key.properties.expires_on is None
    assert key.properties.tags in (None, {})
    assert isinstance(local_public_key(key), rsa.RSAPublicKey)


@pytest.mark.parametrize("size", [None, 3072, 4096])
def test_create_rsa_key_of_each_size(keys: KeyClient, place: Place, name: str, size: int | None) -> None:
    key = keys.create_rsa_key(name, size=size)
    check_bundle(key, place, name, "RSA")
    assert local_public_key(key).key_size == (size or 2048)


@everywhere
@pytest.mark.parametrize(
    ("curve", "width"),
    [(KeyCurveName.p_256, 32), (KeyCurveName.p_384, 48), (KeyCurveName.p_521, 66), (KeyCurveName.p_256_k, 32)],
)
def test_create_ec_key(keys: KeyClient, place: Place, name: str, curve: KeyCurveName, width: int) -> None:
    key = keys.create_ec_key(name, curve=curve)
    check_bundle(key, place, name, "EC")
    assert key.key.crv == curve
    assert key.key_operations == ["sign", "verify"]
    assert (len(key.key.x), len(key.key.y)) == (width, width)
    # The point is on the curve, or the library refuses it.
    assert isinstance(local_public_key(key), ec.EllipticCurvePublicKey)


def test_create_ec_key_has_p_256_as_its_default(keys: KeyClient, name: str) -> None:
    assert keys.create_ec_key(name).key.crv == "P-256"


@everywhere
def test_create_key_with_everything(keys: KeyClient, place: Place, name: str) -> None:
    begins = now() + timedelta(hours=1)
    ends = now() + timedelta(days=30)
    operations = [KeyOperation.verify, KeyOperation.sign]
    tags = {"purpose": "test", "Größe": "groß", "empty": ""}
    key = keys.create_key(
        name,
        KeyType.rsa,
        size=2048,
        key_operations=operations,
        enabled=False,
        tags=tags,
        not_before=begins,
        expires_on=ends,
    )
    check_bundle(key, place, name, "RSA")
    assert key.key_operations == ["verify", "sign"], "kept in the given order"
    assert key.properties.enabled is False
    assert key.properties.tags == tags
    assert (key.properties.not_before, key.properties.expires_on) == (begins, ends)


def test_create_under_a_name_in_use_makes_a_new_version(keys: KeyClient, name: str) -> None:
    first = keys.create_ec_key(name, tags={"a": "1"}, expires_on=now() + timedelta(days=1))
    second = keys.create_rsa_key(name, size=2048)
    assert first.properties.version != second.properties.version
    assert second.properties.tags in (None, {}) and second.properties.expires_on is None, "nothing is inherited"
    assert keys.get_key(name).id == second.id
    old = keys.get_key(name, first.properties.version)
    assert (old.id, old.key_type, old.properties.tags) == (first.id, "EC", {"a": "1"})


def test_no_two_keys_are_equal(keys: KeyClient, names: Callable[[], str]) -> None:
    moduli = {keys.create_rsa_key(names(), size=2048).key.n for _ in range(4)}
    points = {keys.create_ec_key(names()).key.x for _ in range(20)}
    assert (len(moduli), len(points)) == (4, 20)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"key_type": "RSA", "size": 1024}, "too short"),
        ({"key_type": "RSA", "size": 2049}, "no such size"),
        ({"key_type": "RSA", "size": 8192}, "too long"),
        ({"key_type": "EC", "curve": "P-224"}, "no such curve"),
        ({"key_type": "DSA"}, "no such type"),
        ({"key_type": "rsa "}, "no such type"),
        ({"key_type": "EC", "key_operations": ["sign", "dance"]}, "no such operation"),
        ({"key_type": "EC", "tags": {str(i): "x" for i in range(16)}}, "sixteen tags"),
        ({"key_type": "EC", "tags": {"k": "v" * 513}}, "a long value"),
        ({"key_type": "EC", "tags": {"k" * 513: "v"}}, "a long name"),
        (
            {"key_type": "EC", "not_before": datetime(2030, 1, 2), "expires_on": datetime(2030, 1, 1)},
            "ends before it begins",
        ),
    ],
)
def test_create_key_refuses(keys: KeyClient, name: str, arguments: dict, why: str) -> None:
    with refused(400, "BadParameter"):
        keys.create_key(name, arguments.pop("key_type"), **arguments)
    with pytest.raises(ResourceNotFoundError):
        keys.get_key(name)


def test_fifteen_tags_of_full_length_are_kept(keys: KeyClient, name: str) -> None:
    tags = {f"{i:02}" + "k" * 254: "v" * 256 for i in range(15)}
    keys.create_ec_key(name, tags=tags)
    assert keys.get_key(name).properties.tags == tags


@pytest.mark.parametrize("bad", ["a_b", "a.b", "ä", "x" * 128, "a b"])
def test_names_outside_the_rules_are_refused(keys: KeyClient, bad: str) -> None:
    with refused(400, "BadParameter", f"The request URI contains an invalid name: {bad}"):
        keys.create_ec_key(bad)
    with refused(400, "BadParameter"):
        keys.get_key(bad)


def test_names_of_full_length_and_reserved_words_are_names(keys: KeyClient, name: str) -> None:
    for good in (name.ljust(127, "x"), "restore", "versions", "create", "0", "-"):
        created = keys.create_ec_key(good)
        assert keys.get_key(good).id == created.id
        assert keys.get_key(good, created.properties.version).id == created.id


def test_names_are_compared_without_case_and_kept_as_given(keys: KeyClient, name: str) -> None:
    first = keys.create_ec_key(name.capitalize())
    assert keys.get_key(name.upper()).id == first.id
    second = keys.create_ec_key(name.upper())
    assert second.name == name.capitalize()
    assert len(list(keys.list_properties_of_key_versions(name))) == 2


# --- get -------------------------------------------------------------------------------------------------------------


@everywhere
def test_get_key(keys: KeyClient, place: Place, name: str) -> None:
    created = keys.create_ec_key(name, curve="P-384", tags={"x": "y"})
    for got in (keys.get_key(name), keys.get_key(name, created.properties.version), keys.get_key(name, "")):
        check_bundle(got, place, name, "EC")
        assert (got.id, got.key.x, got.key.y) == (created.id, created.key.x, created.key.y)
        assert got.properties.tags == {"x": "y"}
        assert got.properties.created_on == created.properties.created_on


@everywhere
def test_get_of_what_is_not_there(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found") as missing:
        keys.get_key(name)
    assert missing.value.error.code == "KeyNotFound"
    keys.create_ec_key(name)
    for version in ("0" * 32, "f" * 32, "nonsense"):
        with pytest.raises(ResourceNotFoundError, match=f"{name}/{version} was not found in this key vault"):
            keys.get_key(name, version)


# --- update ----------------------------------------------------------------------------------------------------------


@everywhere
def test_update_key_properties(keys: KeyClient, place: Place, name: str) -> None:
    created = keys.create_rsa_key(name, tags={"old": "1"})
    ends = now() + timedelta(days=10)
    updated = keys.update_key_properties(
        name, expires_on=ends, enabled=True, tags={"new": "2"}, key_operations=["sign"]
    )
    check_bundle(updated, place, name, "RSA")
    for key in (updated, keys.get_key(name)):
        assert key.id == created.id, "in place: no new version"
        assert key.key_operations == ["sign"]
        assert key.properties.expires_on == ends
        assert key.properties.tags == {"new": "2"}, "replaced as a whole"
        assert key.properties.created_on == created.properties.created_on
        assert key.properties.updated_on >= created.properties.updated_on
        assert key.key.n == created.key.n


def test_update_keeps_what_it_does_not_name(keys: KeyClient, name: str) -> None:
    begins, ends = now() - timedelta(days=1), now() + timedelta(days=1)
    keys.create_ec_key(name, tags={"a": "b"}, not_before=begins, expires_on=ends, key_operations=["verify"])
    later = ends + timedelta(days=1)
    key = keys.update_key_properties(name, expires_on=later)
    assert (key.properties.not_before, key.properties.expires_on) == (begins, later)
    assert key.properties.tags == {"a": "b"} and key.key_operations == ["verify"] and key.properties.enabled
    key = keys.update_key_properties(name, tags={})
    assert key.properties.tags in (None, {}), "an empty set clears the tags"
    assert key.properties.expires_on == later


def test_update_of_one_version_leaves_the_others(keys: KeyClient, name: str) -> None:
    old = keys.create_ec_key(name)
    new = keys.create_ec_key(name)
    keys.update_key_properties(name, old.properties.version, tags={"which": "old"})
    assert keys.get_key(name, old.properties.version).properties.tags == {"which": "old"}
    assert keys.get_key(name).properties.tags in (None, {})
    keys.update_key_properties(name, tags={"which": "new"})
    assert keys.get_key(name, new.properties.version).properties.tags == {"which": "new"}
    assert keys.get_key(name, old.properties.version).properties.tags == {"which": "old"}


def test_update_refuses(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError):
        keys.update_key_properties(name, enabled=False)
    created = keys.create_ec_key(name, expires_on=now() + timedelta(days=1))
    with pytest.raises(ResourceNotFoundError):
        keys.update_key_properties(name, "0" * 32, enabled=False)
    for arguments in (
        {"not_before": now() + timedelta(days=2)},
        {"tags": {str(i): "" for i in range(16)}},
        {"key_operations": ["nonsense"]},
    ):
        with refused(400, "BadParameter"):
            keys.update_key_properties(name, **arguments)
    key = keys.get_key(name)
    assert key.properties.enabled and key.key_operations == ["sign", "verify"] and key.properties.not_before is None
    assert key.properties.updated_on == created.properties.updated_on


# --- state: enabled, nbf, exp -----------------------------------------------------------------------------------------


@everywhere
def test_a_disabled_key_is_refused_until_it_is_enabled(keys: KeyClient, name: str) -> None:
    key = keys.create_ec_key(name)
    crypto = keys.get_cryptography_client(name, key_version=key.properties.version)
    signature = crypto.sign(SignatureAlgorithm.es256, b"\0" * 32).signature
    keys.update_key_properties(name, enabled=False)
    with refused(403, "Forbidden", "Operation sign is not allowed on a disabled key.") as caught:
        crypto.sign(SignatureAlgorithm.es256, b"\0" * 32)
    assert inner_code(caught) == "KeyDisabled"
    with refused(403, "Forbidden", "Operation get is not allowed on a disabled key."):
        keys.get_key(name)
    assert [k.enabled for k in keys.list_properties_of_key_versions(name)] == [False], "lists show it"
    keys.update_key_properties(name, enabled=True)
    assert crypto.verify(SignatureAlgorithm.es256, b"\0" * 32, signature).is_valid
    assert crypto.sign(SignatureAlgorithm.es256, b"\0" * 32).signature


def test_a_disabled_newest_version_hides_the_name_but_not_older_versions(keys: KeyClient, name: str) -> None:
    old = keys.create_ec_key(name)
    keys.create_ec_key(name, enabled=False)
    with refused(403, "Forbidden"):
        keys.get_key(name)
    assert keys.get_key(name, old.properties.version).id == old.id


@everywhere
@pytest.mark.parametrize(
    ("attributes", "inner", "text"),
    [
        ({"expires_on": timedelta(seconds=-60)}, "KeyExpired", "Operation {} is not allowed on an expired key."),
        ({"not_before": timedelta(hours=1)}, "KeyNotYetValid", "Operation {} is not allowed on a not yet valid key."),
    ],
    ids=["expired", "not-yet-valid"],
)
def test_outside_its_time_a_key_only_undoes(
    keys: KeyClient, place: Place, name: str, attributes: dict[str, timedelta], inner: str, text: str
) -> None:
    """decrypt, unwrapKey and verify go on; encrypt, wrapKey and sign do not (contract section 6)."""
    key = keys.create_rsa_key(name)
    path = f"/keys/{name}/{key.properties.version}"
    digest = {"alg": "RS256", "value": "A" * 43}
    signature = place.ok("POST", f"{path}/sign", digest)["value"]
    sealed = {
        op: place.ok("POST", f"{path}/{op}", {"alg": "RSA-OAEP-256", "value": "c2FsdA"})
        for op in ("encrypt", "wrapkey")
    }
    keys.update_key_properties(name, **{k: now() + delta for k, delta in attributes.items()})

    assert keys.get_key(name).id == key.id
    for op, body in (
        ("sign", digest),
        ("encrypt", {"alg": "RSA-OAEP", "value": "AA"}),
        ("wrapkey", {"alg": "RSA-OAEP", "value": "AA"}),
    ):
        reply = place.call("POST", f"{path}/{op}", body)
        assert (reply.status, reply.error["code"], reply.error["innererror"]["code"]) == (403, "Forbidden", inner)
        spelled = "wrapKey" if op == "wrapkey" else op
        assert reply.error["message"] == text.format(spelled)
    assert place.ok("POST", f"{path}/verify", {"alg": "RS256", "digest": "A" * 43, "value": signature}) == {
        "value": True
    }
    for op, inverse in (("encrypt", "decrypt"), ("wrapkey", "unwrapkey")):
        body = {"alg": "RSA-OAEP-256", "value": sealed[op]["value"]}
        assert place.ok("POST", f"{path}/{inverse}", body)["value"] == "c2FsdA"


# --- lists -----------------------------------------------------------------------------------------------------------


@everywhere
def test_list_properties_of_keys_pages_over_all(keys: KeyClient, place: Place, names: Callable[[], str]) -> None:
    made = {names(): {"number": str(i)} for i in range(30)}
    for name, tags in made.items():
        keys.create_ec_key(name, tags=tags)
    deleted, made_twice = names(), next(iter(made))
    keys.create_ec_key(deleted)
    keys.begin_delete_key(deleted).wait()
    keys.create_ec_key(made_twice, tags={"number": "again"}, enabled=False)
    made[made_twice] = {"number": "again"}

    pages = [list(page) for page in keys.list_properties_of_keys().by_page()]
    assert max(len(page) for page in pages) <= 25 and len(pages) >= 2
    listed = [item for page in pages for item in page]
    ours = {item.name: item for item in listed if item.name in made}
    assert {name: item.tags for name, item in ours.items()} == made, "attributes and tags of the newest version"
    assert ours[made_twice].enabled is False
    assert len(listed) == len({item.id for item in listed}), "nothing twice"
    assert deleted not in {item.name for item in listed}
    for item in ours.values():
        assert item.id == f"{place.url()}/keys/{item.name}" and item.version is None
        assert item.recovery_level == "Recoverable+Purgeable" and item.created_on and item.updated_on

    small = [len(list(page)) for page in keys.list_properties_of_keys(max_page_size=7).by_page()]
    assert max(small) <= 7 and sum(small) == len(listed)


@everywhere
def test_list_properties_of_key_versions(keys: KeyClient, name: str) -> None:
    made = [keys.create_ec_key(name, tags={"n": str(i)}) for i in range(27)]
    pages = [list(page) for page in keys.list_properties_of_key_versions(name).by_page()]
    listed = [item for page in pages for item in page]
    assert max(len(page) for page in pages) <= 25
    assert {item.id: item.tags for item in listed} == {key.id: key.properties.tags for key in made}
    versions = [item.version for item in listed]
    assert versions == sorted(versions), "by version, not by time"


def test_versions_of_an_unknown_name_are_an_empty_list(keys: KeyClient, name: str) -> None:
    assert list(keys.list_properties_of_key_versions(name)) == []


# --- delete, recover, purge -------------------------------------------------------------------------------------------


@everywhere
def test_delete_recover_purge(keys: KeyClient, place: Place, name: str) -> None:
    old = keys.create_ec_key(name, tags={"keep": "me"})
    new = keys.create_ec_key(name)
    crypto = keys.get_cryptography_client(name, key_version=old.properties.version)
    crypto.sign(SignatureAlgorithm.es256, b"\1" * 32)

    poller = keys.begin_delete_key(name)
    gone = poller.result()
    assert gone.id == new.id
    assert gone.recovery_id == f"{place.url()}/deletedkeys/{name}"
    assert abs(gone.deleted_date - now()) < timedelta(minutes=2)
    assert gone.scheduled_purge_date - gone.deleted_date == timedelta(days=90)
    with pytest.raises(ResourceNotFoundError):
        keys.get_key(name)
    with pytest.raises(ResourceNotFoundError):
        crypto.sign(SignatureAlgorithm.es256, b"\1" * 32)
    poller.wait(30)
    assert poller.done()
    read = keys.get_deleted_key(name)
    assert (read.id, read.recovery_id, read.deleted_date, read.scheduled_purge_date) == (
        gone.id,
        gone.recovery_id,
        gone.deleted_date,
        gone.scheduled_purge_date,
    )
    assert read.key.x == new.key.x
    assert list(keys.list_properties_of_key_versions(name)) == []

    with pytest.raises(ResourceExistsError, match="currently in a deleted but recoverable state") as conflict:
        keys.create_ec_key(name)
    assert inner_code(conflict) == "ObjectIsDeletedButRecoverable"
    with pytest.raises(ResourceNotFoundError):
        keys.begin_delete_key(name)

    recovering = keys.begin_recover_deleted_key(name)
    assert recovering.result().id == new.id
    recovering.wait(30)
    assert recovering.done()
    assert {k.id for k in keys.list_properties_of_key_versions(name)} == {old.id, new.id}
    assert keys.get_key(name, old.properties.version).properties.tags == {"keep": "me"}
    signature = crypto.sign(SignatureAlgorithm.es256, b"\1" * 32).signature
    assert crypto.verify(SignatureAlgorithm.es256, b"\1" * 32, signature).is_valid
    with pytest.raises(ResourceNotFoundError, match=f"Deleted Key not found: {name}"):
        keys.get_deleted_key(name)

    keys.begin_delete_key(name).wait(30)
    assert keys.purge_deleted_key(name) is None
    for call in (keys.get_deleted_key, keys.purge_deleted_key, keys.begin_recover_deleted_key, keys.get_key):
        with pytest.raises(ResourceNotFoundError):
            call(name)
    again = keys.create_ec_key(name)
    assert [k.id for k in keys.list_properties_of_key_versions(name)] == [again.id], "the name begins anew"


@everywhere
def test_list_deleted_keys_pages_over_all(keys: KeyClient, place: Place, names: Callable[[], str]) -> None:
    made = {names() for _ in range(27)}
    for name in made:
        keys.create_ec_key(name)
        keys.begin_delete_key(name)
    pages = [list(page) for page in keys.list_deleted_keys().by_page()]
    assert max(len(page) for page in pages) <= 25
    ours = {item.name: item for page in pages for item in page if item.name in made}
    assert set(ours) == made
    for name, item in ours.items():
        assert item.recovery_id == f"{place.url()}/deletedkeys/{name}"
        assert item.deleted_date and item.scheduled_purge_date
    for name in made:
        keys.purge_deleted_key(name)
    assert not made & {item.name for item in keys.list_deleted_keys()}


def test_delete_of_what_is_not_there(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found"):
        keys.begin_delete_key(name)
    keys.create_ec_key(name)
    for call in (keys.get_deleted_key, keys.purge_deleted_key, keys.begin_recover_deleted_key):
        with pytest.raises(ResourceNotFoundError, match="not found"):
            call(name)
    assert keys.get_key(name)


# --- backup and restore -----------------------------------------------------------------------------------------------


@everywhere
def test_backup_and_restore(keys: KeyClient, name: str) -> None:
    old = keys.create_rsa_key(name, tags={"generation": "1"})
    new = keys.create_ec_key(name, enabled=False, expires_on=now() + timedelta(days=3))
    blob = keys.backup_key(name)
    assert len(blob) > 100

    with pytest.raises(ResourceExistsError, match="There was a conflict restoring the key"):
        keys.restore_key_backup(blob)
    keys.begin_delete_key(name).wait(30)
    with pytest.raises(ResourceExistsError):
        keys.restore_key_backup(blob)
    keys.purge_deleted_key(name)

    restored = keys.restore_key_backup(blob)
    assert restored.id == new.id
    assert (restored.properties.enabled, restored.properties.expires_on) == (False, new.properties.expires_on)
    versions = {k.version: k for k in keys.list_properties_of_key_versions(name)}
    assert set(versions) == {old.properties.version, new.properties.version}
    assert versions[old.properties.version].tags == {"generation": "1"}
    assert versions[old.properties.version].created_on == old.properties.created_on
    signature = (
        keys.get_cryptography_client(name, key_version=old.properties.version).sign("RS256", b"\7" * 32).signature
    )
    local_public_key(old).verify(signature, b"\7" * 32, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))


def test_a_backup_restores_into_another_vault_of_the_subscription(dev_place: Place, keys: KeyClient, name: str) -> None:
    key = keys.create_ec_key(name)
    blob = keys.backup_key(name)
    other = KeyClient(dev_place.url("second"), clients_of(dev_place).credential, **dev_place.sdk())
    restored = other.restore_key_backup(blob)
    assert restored.id == key.id.replace(dev_place.host(), dev_place.host("second"))
    assert restored.key.x == key.key.x
    keys.begin_delete_key(name).wait(30)
    keys.purge_deleted_key(name)
    digest = b"\3" * 32
    signature = other.get_cryptography_client(name).sign(SignatureAlgorithm.es256, digest).signature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    der = utils.encode_dss_signature(r, s)
    local_public_key(key).verify(der, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def test_restore_refuses_blobs_that_are_not_whole(keys: KeyClient, name: str) -> None:
    keys.create_ec_key(name)
    blob = keys.backup_key(name)
    keys.begin_delete_key(name).wait(30)
    keys.purge_deleted_key(name)
    flips = [blob[:i] + bytes([blob[i] ^ 1]) + blob[i + 1 :] for i in (0, 4, len(blob) // 2, len(blob) - 1)]
    for bad in (b"", b"x", b"\0" * 500, blob[:-1], blob + b"\0", blob[: len(blob) // 2], *flips):
        with refused(400, "BadParameter", "Backup blob contains invalid or corrupt version."):
            keys.restore_key_backup(bad)
    with pytest.raises(ResourceNotFoundError):
        keys.get_key(name)
    assert keys.restore_key_backup(blob).name == name


def test_a_key_backup_is_no_secret_backup(keys: KeyClient, dev_place: Place, name: str) -> None:
    keys.create_ec_key(name)
    with refused(400, "BadParameter"):
        clients_of(dev_place).secrets.restore_secret_backup(keys.backup_key(name))


def test_backup_of_what_is_not_there(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found"):
        keys.backup_key(name)


# --- the rest --------------------------------------------------------------------------------------------------------


@everywhere
def test_get_cryptography_client_and_ids(keys: KeyClient, place: Place, name: str) -> None:
    key = keys.create_ec_key(name)
    client = keys.get_cryptography_client(name)
    result = client.sign(SignatureAlgorithm.es256, b"\2" * 32)
    assert result.key_id == key.id, "the versionless client learns the version"
    assert client.key_id == key.id and client.vault_url == place.url()
    pinned = keys.get_cryptography_client(name, key_version=key.properties.version)
    assert pinned.key_id == key.id
    parsed = KeyVaultKeyIdentifier(key.id)
    assert (parsed.vault_url, parsed.name, parsed.version) == (place.url(), name, key.properties.version)


def test_send_request(keys: KeyClient, place: Place, name: str) -> None:
    key = keys.create_ec_key(name)
    reply = keys.send_request(HttpRequest("GET", f"keys/{name}", params={"api-version": "7.4"}))
    reply.raise_for_status()
    assert reply.json()["key"]["kid"] == key.id
    assert "hsmPlatform" not in reply.json()["attributes"], "not shown before 7.5"


@pytest.mark.parametrize("version", ["2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01"])
def test_each_version_of_the_interface(dev_place: Place, name: str, version: str) -> None:
    client = KeyClient(dev_place.url(), clients_of(dev_place).credential, api_version=version, **dev_place.sdk())
    with client:
        key = client.create_ec_key(name)
        assert client.get_key(name).id == key.id
        assert key.properties.recoverable_days == (None if version in ("2016-10-01", "7.0") else 90)
        client.begin_delete_key(name)
        client.purge_deleted_key(name)


def test_errors_are_the_sdks_own_classes(keys: KeyClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError) as missing:
        keys.get_key(name)
    assert missing.value.status_code == 404
    with pytest.raises(HttpResponseError) as bad:
        keys.create_key(name, "nonsense")
    assert (bad.value.status_code, bad.value.error.code) == (400, "BadParameter")
    assert not isinstance(bad.value, (ResourceNotFoundError, ResourceExistsError))
