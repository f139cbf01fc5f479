"""SecretClient of `azure.keyvault.secrets.aio`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.keyvault.secrets.aio import SecretClient

from checks import inner_code, now, refused
from harness import Place

everywhere = pytest.mark.everywhere


@everywhere
async def test_set_get_update(asecrets: SecretClient, place: Place, name: str) -> None:
    stored = await asecrets.set_secret(name, "Füße", tags={"a": "b"}, content_type="t")
    assert stored.id == f"{place.url()}/secrets/{name}/{stored.properties.version}"
    second = await asecrets.set_secret(name, "two")
    assert (await asecrets.get_secret(name)).value == "two"
    assert (await asecrets.get_secret(name, stored.properties.version)).value == "Füße"
    ends = now() + timedelta(days=1)
    updated = await asecrets.update_secret_properties(name, expires_on=ends, content_type="u")
    assert (updated.id, updated.expires_on, updated.content_type) == (second.id, ends, "u")
    await asecrets.update_secret_properties(name, enabled=False)
    with refused(403, "Forbidden", "Operation get is not allowed on a disabled secret.") as caught:
        await asecrets.get_secret(name)
    assert inner_code(caught) == "SecretDisabled"


@everywhere
async def test_lists_page_over_all(asecrets: SecretClient, names: Callable[[], str]) -> None:
    made = [names() for _ in range(26)]
    await asyncio.gather(*(asecrets.set_secret(name, "v") for name in made))
    pages = [[item.name async for item in page] async for page in asecrets.list_properties_of_secrets().by_page()]
    assert max(map(len, pages)) <= 25 and len(pages) >= 2
    assert set(made) <= {name for page in pages for name in page}

    await asyncio.gather(*(asecrets.set_secret(made[0], str(i)) for i in range(26)))
    listed = [item.version async for item in asecrets.list_properties_of_secret_versions(made[0])]
    assert len(listed) == 27 and listed == sorted(set(listed)), "sets at once are versions of their own"
    assert [item async for item in asecrets.list_properties_of_secret_versions(names())] == []


@everywhere
async def test_delete_recover_purge(asecrets: SecretClient, place: Place, name: str) -> None:
    stored = await asecrets.set_secret(name, "v")
    gone = await asecrets.delete_secret(name)
    assert gone.id == stored.id and gone.recovery_id == f"{place.url()}/deletedsecrets/{name}"
    assert gone.scheduled_purge_date - gone.deleted_date == timedelta(days=90)
    assert (await asecrets.get_deleted_secret(name)).id == stored.id
    assert name in [item.name async for item in asecrets.list_deleted_secrets()]
    with pytest.raises(ResourceNotFoundError, match="not found"):
        await asecrets.get_secret(name)
    with pytest.raises(ResourceExistsError) as conflict:
        await asecrets.set_secret(name, "w")
    assert inner_code(conflict) == "ObjectIsDeletedButRecoverable"
    assert (await asecrets.recover_deleted_secret(name)).id == stored.id
    assert (await asecrets.get_secret(name)).value == "v"
    await asecrets.delete_secret(name)
    await asecrets.purge_deleted_secret(name)
    with pytest.raises(ResourceNotFoundError, match="Deleted Secret not found"):
        await asecrets.get_deleted_secret(name)


@everywhere
async def test_backup_and_restore(asecrets: SecretClient, name: str) -> None:
    stored = await asecrets.set_secret(name, "v", tags={"a": "b"})
    blob = await asecrets.backup_secret(name)
    with pytest.raises(ResourceExistsError):
        await asecrets.restore_secret_backup(blob)
    await asecrets.delete_secret(name)
    await asecrets.purge_deleted_secret(name)
    restored = await asecrets.restore_secret_backup(blob)
    assert (restored.id, restored.tags) == (stored.id, {"a": "b"})
    assert (await asecrets.get_secret(name)).value == "v"
    with refused(400, "BadParameter", "Backup blob contains invalid or corrupt version."):
        await asecrets.restore_secret_backup(blob[1:])


async def test_send_request(asecrets: SecretClient, name: str) -> None:
    stored = await asecrets.set_secret(name, "v")
    reply = await asecrets.send_request(HttpRequest("GET", f"secrets/{name}", params={"api-version": "7.4"}))
    assert (reply.status_code, reply.json()["id"]) == (200, stored.id)
