"""SecretClient, every method but what certificates bring, as applications call it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.secrets import KeyVaultSecretIdentifier, SecretClient, SecretProperties

from checks import inner_code, now, refused
from conftest import clients_of
from harness import Place

everywhere = pytest.mark.everywhere


def check_properties(properties: SecretProperties, place: Place, name: str) -> None:
    """What holds for every answer that shows a version of a secret (contract sections 5, 6 and 11)."""
    assert properties.name == name
    assert re.fullmatch("[0-9a-f]{32}", properties.version)
    assert properties.id == f"{place.url()}/secrets/{name}/{properties.version}"
    assert properties.vault_url == place.url()
    assert abs(properties.created_on - now()) < timedelta(minutes=2)
    assert properties.updated_on >= properties.created_on
    assert properties.recovery_level == "Recoverable+Purgeable"
    assert properties.recoverable_days == 90
    assert properties.key_id is None and not properties.managed


# --- set and get -----------------------------------------------------------------------------------------------------


@everywhere
def test_set_and_get(secrets: SecretClient, place: Place, name: str) -> None:
    stored = secrets.set_secret(name, "s3cr3t")
    check_properties(stored.properties, place, name)
    assert stored.value == "s3cr3t"
    assert stored.properties.enabled is True
    assert stored.properties.content_type is None and stored.properties.tags in (None, {})
    assert stored.properties.not_before is None and stored.properties.expires_on is None
    for got in (
        secrets.get_secret(name),
        secrets.get_secret(name, stored.properties.version),
        secrets.get_secret(name, ""),
    ):
        check_properties(got.properties, place, name)
        assert (got.id, got.value) == (stored.id, "s3cr3t")
        assert got.properties.created_on == stored.properties.created_on


@everywhere
def test_set_with_everything(secrets: SecretClient, place: Place, name: str) -> None:
    begins, ends = now() - timedelta(days=1), now() + timedelta(days=1)
    tags = {"owner": "tests", "日本": "語"}
    stored = secrets.set_secret(
        name, "v", enabled=True, tags=tags, content_type="text/plain", not_before=begins, expires_on=ends
    )
    check_properties(stored.properties, place, name)
    for properties in (stored.properties, secrets.get_secret(name).properties):
        assert properties.tags == tags
        assert properties.content_type == "text/plain"
        assert (properties.not_before, properties.expires_on) == (begins, ends)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "\0",
        "line\r\nline\ttab",
        "Füße 🔑 日本語 \u202e \ufeff",
        "\U0010ffff" * 6400,
        "x" * 25_600,
        '{"json": [1, 2, "\\u0000"]}',
        "</script>'\";--",
    ],
    ids=["empty", "blank", "nul", "control", "unicode", "25600-bytes-of-astral", "25600-bytes", "json", "markup"],
)
def test_values_are_kept_exactly(secrets: SecretClient, name: str, value: str) -> None:
    assert secrets.set_secret(name, value).value == value
    assert secrets.get_secret(name).value == value


@pytest.mark.parametrize("value", ["x" * 25_601, "é" * 12_801], ids=["25601-bytes", "25602-bytes-of-two"])
def test_values_that_are_too_long_are_refused(secrets: SecretClient, name: str, value: str) -> None:
    with refused(400, "BadParameter"):
        secrets.set_secret(name, value)
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name)


@everywhere
def test_each_set_is_a_new_version_and_old_ones_stay(secrets: SecretClient, name: str) -> None:
    first = secrets.set_secret(name, "one", tags={"n": "1"}, content_type="a", expires_on=now() + timedelta(days=1))
    second = secrets.set_secret(name, "two")
    assert first.properties.version != second.properties.version
    assert second.properties.tags in (None, {}) and second.properties.content_type is None
    assert second.properties.expires_on is None, "nothing is inherited"
    assert secrets.get_secret(name).value == "two"
    assert secrets.get_secret(name, first.properties.version).value == "one"
    assert secrets.set_secret(name, "two").id != second.id, "the same value again is a version again"


@everywhere
def test_get_of_what_is_not_there(secrets: SecretClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found") as missing:
        secrets.get_secret(name)
    assert missing.value.error.code == "SecretNotFound"
    secrets.set_secret(name, "v")
    for version in ("0" * 32, "nonsense"):
        with pytest.raises(ResourceNotFoundError, match=f"{name}/{version} was not found in this key vault"):
            secrets.get_secret(name, version)


def test_set_refuses(secrets: SecretClient, name: str) -> None:
    for arguments in (
        {"tags": {str(i): "" for i in range(16)}},
        {"tags": {"k" * 513: ""}},
        {"tags": {"k": "v" * 513}},
        {"content_type": "c" * 256},
        {"not_before": now() + timedelta(days=2), "expires_on": now() + timedelta(days=1)},
    ):
        with refused(400, "BadParameter"):
            secrets.set_secret(name, "v", **arguments)
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name)
    kept = secrets.set_secret(
        name, "v", content_type="c" * 255, tags={f"{i:02}" + "k" * 254: "v" * 256 for i in range(15)}
    )
    assert len(kept.properties.tags) == 15 and len(kept.properties.content_type) == 255


@pytest.mark.parametrize("bad", ["a_b", "a.b", "ä", "x" * 128, "a b"])
def test_names_outside_the_rules_are_refused(secrets: SecretClient, bad: str) -> None:
    with refused(400, "BadParameter", f"The request URI contains an invalid name: {bad}"):
        secrets.set_secret(bad, "v")
    with refused(400, "BadParameter"):
        secrets.get_secret(bad)


def test_names_are_compared_without_case_and_kept_as_given(secrets: SecretClient, name: str) -> None:
    first = secrets.set_secret(name.capitalize(), "v")
    assert secrets.get_secret(name.upper()).id == first.id
    assert secrets.set_secret(name.upper(), "w").name == name.capitalize()
    assert len(list(secrets.list_properties_of_secret_versions(name))) == 2


def test_a_key_and_a_secret_may_share_a_name(secrets: SecretClient, dev_place: Place, name: str) -> None:
    keys = clients_of(dev_place).keys
    keys.create_ec_key(name)
    secrets.set_secret(name, "v")
    keys.begin_delete_key(name).wait(30)
    assert secrets.get_secret(name).value == "v"
    assert name not in {item.name for item in secrets.list_deleted_secrets()}


# --- update ----------------------------------------------------------------------------------------------------------


@everywhere
def test_update_secret_properties(secrets: SecretClient, place: Place, name: str) -> None:
    stored = secrets.set_secret(name, "v", tags={"old": "1"}, content_type="a/b")
    begins, ends = now() - timedelta(days=1), now() + timedelta(days=9)
    updated = secrets.update_secret_properties(
        name, tags={"new": "2"}, content_type="c/d", not_before=begins, expires_on=ends
    )
    check_properties(updated, place, name)
    for properties in (updated, secrets.get_secret(name).properties):
        assert properties.id == stored.id, "in place: no new version"
        assert (properties.tags, properties.content_type) == ({"new": "2"}, "c/d")
        assert (properties.not_before, properties.expires_on) == (begins, ends)
        assert properties.created_on == stored.properties.created_on
    assert secrets.get_secret(name).value == "v"


def test_update_keeps_what_it_does_not_name(secrets: SecretClient, name: str) -> None:
    ends = now() + timedelta(days=1)
    secrets.set_secret(name, "v", tags={"a": "b"}, content_type="t", expires_on=ends)
    properties = secrets.update_secret_properties(name, not_before=ends - timedelta(days=1))
    assert (properties.tags, properties.content_type, properties.expires_on) == ({"a": "b"}, "t", ends)
    properties = secrets.update_secret_properties(name, tags={})
    assert properties.tags in (None, {}), "an empty set clears the tags"
    assert properties.content_type == "t"


def test_update_of_one_version_leaves_the_others(secrets: SecretClient, name: str) -> None:
    old = secrets.set_secret(name, "1")
    new = secrets.set_secret(name, "2")
    secrets.update_secret_properties(name, old.properties.version, tags={"which": "old"})
    secrets.update_secret_properties(name, tags={"which": "new"})
    assert secrets.get_secret(name, old.properties.version).properties.tags == {"which": "old"}
    assert secrets.get_secret(name, new.properties.version).properties.tags == {"which": "new"}


def test_update_refuses(secrets: SecretClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError):
        secrets.update_secret_properties(name, content_type="x")
    stored = secrets.set_secret(name, "v", expires_on=now() + timedelta(days=1))
    with pytest.raises(ResourceNotFoundError):
        secrets.update_secret_properties(name, "0" * 32, content_type="x")
    for arguments in (
        {"tags": {str(i): "" for i in range(16)}},
        {"content_type": "c" * 256},
        {"not_before": now() + timedelta(days=2)},
    ):
        with refused(400, "BadParameter"):
            secrets.update_secret_properties(name, **arguments)
    properties = secrets.get_secret(name).properties
    assert properties.content_type is None and properties.not_before is None
    assert properties.updated_on == stored.properties.updated_on


@everywhere
def test_a_disabled_secret_is_refused_until_it_is_enabled(secrets: SecretClient, name: str) -> None:
    secrets.set_secret(name, "v")
    secrets.update_secret_properties(name, enabled=False)
    with refused(403, "Forbidden", "Operation get is not allowed on a disabled secret.") as caught:
        secrets.get_secret(name)
    assert inner_code(caught) == "SecretDisabled"
    assert [item.enabled for item in secrets.list_properties_of_secret_versions(name)] == [False]
    secrets.update_secret_properties(name, enabled=True)
    assert secrets.get_secret(name).value == "v"


def test_a_secret_may_be_set_disabled(secrets: SecretClient, name: str) -> None:
    old = secrets.set_secret(name, "old")
    secrets.set_secret(name, "new", enabled=False)
    with refused(403, "Forbidden"):
        secrets.get_secret(name)
    assert secrets.get_secret(name, old.properties.version).value == "old"


@everywhere
def test_expired_and_not_yet_valid_secrets_can_be_read(secrets: SecretClient, names: Callable[[], str]) -> None:
    expired, early = names(), names()
    secrets.set_secret(expired, "late", expires_on=now() - timedelta(days=1))
    secrets.set_secret(early, "early", not_before=now() + timedelta(days=1))
    assert (secrets.get_secret(expired).value, secrets.get_secret(early).value) == ("late", "early")


# --- lists -----------------------------------------------------------------------------------------------------------


@everywhere
def test_list_properties_of_secrets_pages_over_all(
    secrets: SecretClient, place: Place, names: Callable[[], str]
) -> None:
    made = {names(): {"number": str(i)} for i in range(30)}
    for name, tags in made.items():
        secrets.set_secret(name, "hidden", tags=tags, content_type="t")
    deleted, disabled = names(), next(iter(made))
    secrets.set_secret(deleted, "v")
    secrets.begin_delete_secret(deleted).wait(30)
    secrets.update_secret_properties(disabled, enabled=False)

    pages = [list(page) for page in secrets.list_properties_of_secrets().by_page()]
    assert max(len(page) for page in pages) <= 25 and len(pages) >= 2
    listed = [item for page in pages for item in page]
    ours = {item.name: item for item in listed if item.name in made}
    assert {name: item.tags for name, item in ours.items()} == made
    assert len(listed) == len({item.id for item in listed}), "nothing twice"
    assert deleted not in {item.name for item in listed}
    assert ours[disabled].enabled is False
    for item in ours.values():
        assert item.id == f"{place.url()}/secrets/{item.name}" and item.version is None
        assert item.content_type == "t" and item.created_on and item.updated_on

    small = [len(list(page)) for page in secrets.list_properties_of_secrets(max_page_size=11).by_page()]
    assert max(small) <= 11 and sum(small) == len(listed)


@everywhere
def test_list_properties_of_secret_versions(secrets: SecretClient, name: str) -> None:
    made = [secrets.set_secret(name, str(i)) for i in range(27)]
    pages = [list(page) for page in secrets.list_properties_of_secret_versions(name).by_page()]
    assert max(len(page) for page in pages) <= 25
    versions = [item.version for page in pages for item in page]
    assert set(versions) == {secret.properties.version for secret in made} and len(versions) == 27
    assert versions == sorted(versions), "by version, not by time"
    assert secrets.get_secret(name).value == "26", "the newest by time"


def test_versions_of_an_unknown_name_are_an_empty_list(secrets: SecretClient, name: str) -> None:
    assert list(secrets.list_properties_of_secret_versions(name)) == []


# --- delete, recover, purge -------------------------------------------------------------------------------------------


@everywhere
def test_delete_recover_purge(secrets: SecretClient, place: Place, name: str) -> None:
    old = secrets.set_secret(name, "old", tags={"keep": "me"})
    new = secrets.set_secret(name, "new", content_type="t")
    poller = secrets.begin_delete_secret(name)
    gone = poller.result()
    assert gone.id == new.id
    assert gone.recovery_id == f"{place.url()}/deletedsecrets/{name}"
    assert abs(gone.deleted_date - now()) < timedelta(minutes=2)
    assert gone.scheduled_purge_date - gone.deleted_date == timedelta(days=90)
    for version in (None, old.properties.version):
        with pytest.raises(ResourceNotFoundError):
            secrets.get_secret(name, version)
    poller.wait(30)
    assert poller.done()
    read = secrets.get_deleted_secret(name)
    assert (read.id, read.recovery_id, read.deleted_date, read.scheduled_purge_date) == (
        gone.id,
        gone.recovery_id,
        gone.deleted_date,
        gone.scheduled_purge_date,
    )
    assert read.properties.content_type == "t"

    with pytest.raises(ResourceExistsError, match="currently in a deleted but recoverable state") as conflict:
        secrets.set_secret(name, "again")
    assert inner_code(conflict) == "ObjectIsDeletedButRecoverable"
    with pytest.raises(ResourceNotFoundError):
        secrets.begin_delete_secret(name)

    recovering = secrets.begin_recover_deleted_secret(name)
    assert recovering.result().id == new.id
    recovering.wait(30)
    assert recovering.done()
    assert secrets.get_secret(name).value == "new"
    assert secrets.get_secret(name, old.properties.version).value == "old"
    assert secrets.get_secret(name, old.properties.version).properties.tags == {"keep": "me"}
    with pytest.raises(ResourceNotFoundError, match=f"Deleted Secret not found: {name}"):
        secrets.get_deleted_secret(name)

    secrets.begin_delete_secret(name).wait(30)
    assert secrets.purge_deleted_secret(name) is None
    for call in (
        secrets.get_deleted_secret,
        secrets.purge_deleted_secret,
        secrets.begin_recover_deleted_secret,
        secrets.get_secret,
    ):
        with pytest.raises(ResourceNotFoundError):
            call(name)
    again = secrets.set_secret(name, "anew")
    assert [item.id for item in secrets.list_properties_of_secret_versions(name)] == [again.id]
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name, old.properties.version)


@everywhere
def test_list_deleted_secrets_pages_over_all(secrets: SecretClient, place: Place, names: Callable[[], str]) -> None:
    made = {names() for _ in range(27)}
    for name in made:
        secrets.set_secret(name, "v")
        secrets.begin_delete_secret(name)
    pages = [list(page) for page in secrets.list_deleted_secrets().by_page()]
    assert max(len(page) for page in pages) <= 25
    ours = {item.name: item for page in pages for item in page if item.name in made}
    assert set(ours) == made
    for name, item in ours.items():
        assert item.recovery_id == f"{place.url()}/deletedsecrets/{name}"
        assert item.scheduled_purge_date - item.deleted_date == timedelta(days=90)
    for name in made:
        secrets.purge_deleted_secret(name)
    assert not made & {item.name for item in secrets.list_deleted_secrets()}


def test_delete_of_what_is_not_there(secrets: SecretClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found"):
        secrets.begin_delete_secret(name)
    secrets.set_secret(name, "v")
    for call in (secrets.get_deleted_secret, secrets.purge_deleted_secret, secrets.begin_recover_deleted_secret):
        with pytest.raises(ResourceNotFoundError, match="not found"):
            call(name)
    assert secrets.get_secret(name).value == "v"


# --- backup and restore -----------------------------------------------------------------------------------------------


@everywhere
def test_backup_and_restore(secrets: SecretClient, place: Place, name: str) -> None:
    old = secrets.set_secret(name, "old", tags={"generation": "1"}, expires_on=now() + timedelta(days=3))
    new = secrets.set_secret(name, "new", content_type="t")
    blob = secrets.backup_secret(name)
    with pytest.raises(ResourceExistsError, match="There was a conflict restoring the secret"):
        secrets.restore_secret_backup(blob)
    secrets.begin_delete_secret(name).wait(30)
    with pytest.raises(ResourceExistsError):
        secrets.restore_secret_backup(blob)
    secrets.purge_deleted_secret(name)

    restored = secrets.restore_secret_backup(blob)
    check_properties(restored, place, name)
    assert (restored.id, restored.content_type) == (new.id, "t")
    assert secrets.get_secret(name).value == "new"
    got = secrets.get_secret(name, old.properties.version)
    assert (got.value, got.properties.tags) == ("old", {"generation": "1"})
    assert got.properties.expires_on == old.properties.expires_on
    assert got.properties.created_on == old.properties.created_on


def test_a_backup_restores_into_another_vault_of_the_subscription(
    secrets: SecretClient, dev_place: Place, name: str
) -> None:
    stored = secrets.set_secret(name, "moved")
    other = SecretClient(dev_place.url("second"), clients_of(dev_place).credential, **dev_place.sdk())
    restored = other.restore_secret_backup(secrets.backup_secret(name))
    assert restored.id == stored.id.replace(dev_place.host(), dev_place.host("second"))
    secrets.begin_delete_secret(name).wait(30)
    secrets.purge_deleted_secret(name)
    assert other.get_secret(name).value == "moved"
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name)


def test_restore_refuses_blobs_that_are_not_whole(secrets: SecretClient, name: str) -> None:
    secrets.set_secret(name, "v")
    blob = secrets.backup_secret(name)
    secrets.begin_delete_secret(name).wait(30)
    secrets.purge_deleted_secret(name)
    flips = [blob[:i] + bytes([blob[i] ^ 1]) + blob[i + 1 :] for i in (0, 4, len(blob) // 2, len(blob) - 1)]
    for bad in (b"", b"x", b"\0" * 500, blob[:-1], blob + b"\0", blob[: len(blob) // 2], *flips):
        with refused(400, "BadParameter", "Backup blob contains invalid or corrupt version."):
            secrets.restore_secret_backup(bad)
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name)
    assert secrets.restore_secret_backup(blob).name == name


def test_backup_of_what_is_not_there(secrets: SecretClient, name: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="not found"):
        secrets.backup_secret(name)


# --- the rest --------------------------------------------------------------------------------------------------------


def test_vaults_are_apart(secrets: SecretClient, dev_place: Place, name: str) -> None:
    other = SecretClient(dev_place.url("second"), clients_of(dev_place).credential, **dev_place.sdk())
    stored = secrets.set_secret(name, "here")
    with pytest.raises(ResourceNotFoundError):
        other.get_secret(name)
    other.set_secret(name, "there")
    with pytest.raises(ResourceNotFoundError):
        other.get_secret(name, stored.properties.version)
    assert (secrets.get_secret(name).value, other.get_secret(name).value) == ("here", "there")


def test_ids_parse(secrets: SecretClient, place: Place, name: str) -> None:
    stored = secrets.set_secret(name, "v")
    parsed = KeyVaultSecretIdentifier(stored.id)
    assert (parsed.vault_url, parsed.name, parsed.version) == (place.url(), name, stored.properties.version)


def test_send_request(secrets: SecretClient, name: str) -> None:
    stored = secrets.set_secret(name, "v")
    reply = secrets.send_request(HttpRequest("GET", f"secrets/{name}/", params={"api-version": "7.0"}))
    reply.raise_for_status()
    assert (reply.json()["id"], reply.json()["value"]) == (stored.id, "v")
    assert "recoverableDays" not in reply.json()["attributes"], "not shown before 7.1"


def test_out_content_type_means_nothing_for_a_plain_secret(secrets: SecretClient, name: str) -> None:
    secrets.set_secret(name, "v", content_type="text/plain")
    got = secrets.get_secret(name, out_content_type="application/x-pem-file")
    assert (got.value, got.properties.content_type) == ("v", "text/plain")
