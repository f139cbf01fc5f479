"""KeyClient of `azure.keyvault.keys.aio`: the same methods over aiohttp, with its TLS, proxy and challenge code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import SignatureAlgorithm

from checks import inner_code, now, refused
from harness import Place

everywhere = pytest.mark.everywhere


@everywhere
async def test_create_get_update(akeys: KeyClient, place: Place, name: str) -> None:
    rsa = await akeys.create_rsa_key(name, size=2048, tags={"a": "b"})
    ec = await akeys.create_ec_key(name, curve="P-521")
    assert (rsa.key_type, ec.key_type) == ("RSA", "EC")
    assert (await akeys.get_key(name)).id == ec.id == f"{place.url()}/keys/{name}/{ec.properties.version}"
    assert (await akeys.get_key(name, rsa.properties.version)).key.n == rsa.key.n
    ends = now() + timedelta(days=2)
    updated = await akeys.update_key_properties(name, expires_on=ends, tags={"c": "d"}, key_operations=["verify"])
    assert updated.id == ec.id
    assert (updated.properties.expires_on, updated.properties.tags) == (ends, {"c": "d"})
    assert (await akeys.get_key(name)).key_operations == ["verify"]
    typed = await akeys.create_key(name, "RSA", size=2048, enabled=False)
    with refused(403, "Forbidden") as caught:
        await akeys.get_key(name)
    assert inner_code(caught) == "KeyDisabled"
    await akeys.update_key_properties(name, enabled=True)
    assert (await akeys.get_key(name)).id == typed.id


@everywhere
async def test_lists_page_over_all(akeys: KeyClient, names: Callable[[], str]) -> None:
    made = [names() for _ in range(26)]
    # At once: the service takes parallel requests of one client.
    await asyncio.gather(*(akeys.create_ec_key(name) for name in made))
    pages = [[item.name async for item in page] async for page in akeys.list_properties_of_keys().by_page()]
    assert max(map(len, pages)) <= 25 and len(pages) >= 2
    assert set(made) <= {name for page in pages for name in page}

    versions = await asyncio.gather(*(akeys.create_ec_key(made[0]) for _ in range(26)))
    listed = [item.version async for item in akeys.list_properties_of_key_versions(made[0])]
    assert len(listed) == 27 and listed == sorted(listed)
    assert {key.properties.version for key in versions} < set(listed)
    assert [item async for item in akeys.list_properties_of_key_versions(names())] == []


@everywhere
async def test_delete_recover_purge(akeys: KeyClient, place: Place, name: str) -> None:
    key = await akeys.create_ec_key(name)
    gone = await akeys.delete_key(name)
    assert gone.id == key.id and gone.recovery_id == f"{place.url()}/deletedkeys/{name}"
    assert gone.scheduled_purge_date - gone.deleted_date == timedelta(days=90)
    assert (await akeys.get_deleted_key(name)).id == key.id
    assert name in [item.name async for item in akeys.list_deleted_keys()]
    with pytest.raises(ResourceNotFoundError, match="not found"):
        await akeys.get_key(name)
    with pytest.raises(ResourceExistsError) as conflict:
        await akeys.create_rsa_key(name)
    assert inner_code(conflict) == "ObjectIsDeletedButRecoverable"
    assert (await akeys.recover_deleted_key(name)).id == key.id
    assert (await akeys.get_key(name)).id == key.id
    await akeys.delete_key(name)
    await akeys.purge_deleted_key(name)
    with pytest.raises(ResourceNotFoundError, match="Deleted Key not found"):
        await akeys.get_deleted_key(name)


@everywhere
async def test_backup_and_restore(akeys: KeyClient, name: str) -> None:
    key = await akeys.create_ec_key(name)
    blob = await akeys.backup_key(name)
    with pytest.raises(ResourceExistsError):
        await akeys.restore_key_backup(blob)
    await akeys.delete_key(name)
    await akeys.purge_deleted_key(name)
    restored = await akeys.restore_key_backup(blob)
    assert (restored.id, restored.key.x) == (key.id, key.key.x)
    with refused(400, "BadParameter", "Backup blob contains invalid or corrupt version."):
        await akeys.restore_key_backup(blob[:-3])


@everywhere
async def test_cryptography_client(akeys: KeyClient, name: str) -> None:
    key = await akeys.create_rsa_key(name)
    crypto = akeys.get_cryptography_client(name)
    result = await crypto.sign(SignatureAlgorithm.ps256, b"\5" * 32)
    assert result.key_id == key.id
    assert (await crypto.verify(SignatureAlgorithm.ps256, b"\5" * 32, result.signature)).is_valid
    assert not (await crypto.verify(SignatureAlgorithm.ps256, b"\6" * 32, result.signature)).is_valid
    sealed = await crypto.encrypt("RSA-OAEP-256", b"salt")
    assert (await crypto.decrypt("RSA-OAEP-256", sealed.ciphertext)).plaintext == b"salt"
    wrapped = await crypto.wrap_key("RSA-OAEP", b"k" * 32)
    assert (await crypto.unwrap_key("RSA-OAEP", wrapped.encrypted_key)).key == b"k" * 32


async def test_many_requests_at_once(akeys: KeyClient, name: str) -> None:
    """Two hundred signatures at once on one key: every one is right, none is another's."""
    await akeys.create_ec_key(name)
    crypto = akeys.get_cryptography_client(name)
    digests = [i.to_bytes(32, "big") for i in range(200)]
    results = await asyncio.gather(*(crypto.sign(SignatureAlgorithm.es256, digest) for digest in digests))
    for digest, result in zip(digests, results, strict=True):
        assert (await crypto.verify(SignatureAlgorithm.es256, digest, result.signature)).is_valid
    assert len({result.signature for result in results}) == 200


async def test_send_request(akeys: KeyClient, place: Place, name: str) -> None:
    await akeys.create_ec_key(name)
    reply = await akeys.send_request(HttpRequest("GET", f"keys/{name}/versions", params={"api-version": "7.4"}))
    assert reply.status_code == 200 and reply.json()["nextLink"] is None
    assert len(reply.json()["value"]) == 1
