"""The management plane through its own SDKs, and the requests that they do not make."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient

from harness import Dev, Place, Reply

MANAGEMENT = "management.azure.com"
VAULTS = "2022-07-01"


def unique(prefix: str) -> str:
    return f"{prefix}{random.randrange(1 << 32):08x}"


class Arm:
    """SDK clients and bare requests on the management plane of one dev server."""

    def __init__(self, dev: Dev, place: Place):
        self.place = place
        env = dev.environment()
        self.subscription = env["AZURE_SUBSCRIPTION_ID"]
        self.oid = place.claims()["oid"]
        self.credential = ClientSecretCredential(**place.credential_arguments())
        arguments = (self.credential, self.subscription)
        self.vaults = KeyVaultManagementClient(*arguments, **place.sdk()).vaults
        self.resources = ResourceManagementClient(*arguments, **place.sdk())

    def call(
        self, method: str, path: str, body: Any = None, version: str | None = VAULTS, token: str | None = None
    ) -> Reply:
        token = token if token is not None else self.place.token("https://management.azure.com")
        target = path if version is None else f"{path}{'&' if '?' in path else '?'}api-version={version}"
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        return self.place.http.request(method, MANAGEMENT, target, data, headers)

    def error(self, status: int, code: str, *args: Any, **kwargs: Any) -> str:
        reply = self.call(*args, **kwargs)
        assert (reply.status, reply.json["error"]["code"]) == (status, code), reply
        return reply.json["error"]["message"]

    def path(self, group: str, vault: str = "") -> str:
        path = f"/subscriptions/{self.subscription}/resourceGroups/{group}"
        return f"{path}/providers/Microsoft.KeyVault/vaults/{vault}" if vault else path

    def properties(self, **more: Any) -> dict[str, Any]:
        return {"tenantId": self.place.tenant, "sku": {"family": "A", "name": "standard"}, "accessPolicies": [], **more}


@pytest.fixture(scope="module")
def arm(dev: Dev, dev_place: Place) -> Arm:
    return Arm(dev, dev_place)


@pytest.fixture(scope="module")
def group(arm: Arm) -> str:
    name = unique("sdk-")
    assert arm.resources.resource_groups.create_or_update(name, {"location": "eastus"}).name == name
    return name


def test_a_vault_from_creation_to_purge(arm: Arm, group: str) -> None:
    name = unique("Sdk-")
    def entry(keys: list[str], secrets: list[str]) -> dict[str, Any]:
        permissions = {"keys": keys, "secrets": secrets}
        return {"tenantId": arm.place.tenant, "objectId": arm.oid, "permissions": permissions}

    properties = {
        "tenantId": arm.place.tenant,
        "sku": {"family": "A", "name": "premium"},
        "accessPolicies": [entry(["get"], ["all"])],
        "enableRbacAuthorization": False,
        "softDeleteRetentionInDays": 7,
    }
    parameters = {"location": "eastus", "properties": properties, "tags": {"a": "b"}}
    made = arm.vaults.begin_create_or_update(group, name, parameters).result()
    assert (made.name, made.properties.provisioning_state) == (name, "Succeeded")
    assert made.properties.vault_uri == f"https://{name.lower()}.vault.azure.net/"
    assert (made.properties.sku.name, made.properties.soft_delete_retention_in_days) == ("premium", 7)
    assert (made.system_data.created_by, made.system_data.created_by_type) == (arm.oid, "Application")

    got = arm.vaults.get(group.upper(), name.upper())
    assert got.id == made.id
    assert name in [v.name for v in arm.vaults.list_by_resource_group(group)]
    assert name in [v.name for v in arm.vaults.list_by_subscription(top=1)]
    assert not arm.vaults.check_name_availability({"name": name, "type": "Microsoft.KeyVault/vaults"}).name_available

    patched = arm.vaults.update(group, name, {"properties": {"enabledForTemplateDeployment": True}})
    assert patched.properties.enabled_for_template_deployment and patched.tags == {"a": "b"}
    assert patched.properties.access_policies[0].permissions.secrets == ["all"]

    def change(operation: str, *keys: str) -> list[str]:
        policies = {"properties": {"accessPolicies": [entry(list(keys), [])]}}
        arm.vaults.update_access_policy(group, name, operation, policies)
        shown = arm.vaults.get(group, name).as_dict()["properties"]["accessPolicies"]
        return sorted(shown[0]["permissions"]["keys"])

    assert change("add", "list", "sign") == ["get", "list", "sign"]
    assert change("remove", "list") == ["get", "sign"]
    assert change("replace", "verify") == ["verify"]

    arm.vaults.delete(group, name)
    with pytest.raises(ResourceNotFoundError):
        arm.vaults.get(group, name)
    assert arm.vaults.get_deleted(name, "eastus").properties.vault_id == made.id
    assert name in [v.name for v in arm.vaults.list_deleted()]
    recovered = arm.vaults.begin_create_or_update(
        group, name, {"location": "eastus", "properties": {"createMode": "recover", **arm.properties()}}
    ).result()
    assert recovered.tags == {"a": "b"}
    arm.vaults.delete(group, name)
    arm.vaults.begin_purge_deleted(name, "eastus").result()
    assert arm.vaults.check_name_availability({"name": name, "type": "Microsoft.KeyVault/vaults"}).name_available


def test_a_group_takes_its_vaults_along(arm: Arm) -> None:
    group, vault = unique("gone-"), unique("gone-")
    arm.resources.resource_groups.create_or_update(group, {"location": "eastus", "tags": {"x": "y"}})
    assert arm.resources.resource_groups.check_existence(group)
    assert arm.call("PUT", arm.path(group, vault), {"location": "eastus", "properties": arm.properties()}).status == 201
    arm.resources.resource_groups.begin_delete(group).result()
    assert not arm.resources.resource_groups.check_existence(group)
    assert vault in [v.name for v in arm.vaults.list_deleted()]
    recover = {"location": "eastus", "properties": {**arm.properties(), "createMode": "recover"}}
    arm.error(404, "ResourceGroupNotFound", "PUT", arm.path(group, vault), recover)


def test_who_decides_depends_on_the_version(arm: Arm, group: str) -> None:
    for version, rbac in (("2025-05-01", False), ("2026-02-01", True), ("2016-10-01", False)):
        path = arm.path(group, unique("v-"))
        made = arm.call("PUT", path, {"location": "eastus", "properties": arm.properties()}, version)
        assert made.json["properties"]["enableRbacAuthorization"] is rbac, version
        # An update without the property changes nothing, whatever its version.
        again = arm.call("PUT", path, {"location": "eastus", "properties": arm.properties()}, "2026-02-01")
        assert (again.status, again.json["properties"]["enableRbacAuthorization"]) == (200, rbac)


def test_what_is_refused(arm: Arm, group: str) -> None:
    path = arm.path(group, unique("v-"))

    def put(properties: dict[str, Any], location: str = "eastus") -> tuple[Any, ...]:
        return "PUT", path, {"location": location, "properties": properties}

    bad = arm.properties
    arm.error(400, "BadRequest", *put(bad(sku={"family": "A", "name": "basic"})))
    arm.error(400, "BadRequest", *put(bad(tenantId="nobody.example")))
    arm.error(400, "BadRequest", *put(bad(softDeleteRetentionInDays=6)))
    arm.error(400, "BadRequest", *put(bad(enablePurgeProtection=False)))
    arm.error(400, "BadRequest", *put(bad(networkAcls={"ipRules": [{"value": "300.0.0.1"}]})))
    arm.error(400, "BadRequest", *put(bad(accessPolicies=[{"tenantId": arm.place.tenant, "objectId": "x"}])))
    arm.error(400, "LocationRequired", *put(bad(), ""))
    assert arm.call(*put(bad(enablePurgeProtection=True))).status == 201
    arm.error(409, "InvalidResourceLocation", *put(bad(), "westus"))
    arm.error(400, "BadRequest", *put(bad(softDeleteRetentionInDays=8)))
    # On for good.
    assert arm.call(*put(bad())).json["properties"]["enablePurgeProtection"] is True
    arm.error(409, "VaultAlreadyExists", "PUT", arm.path("claviger", path.rsplit("/", 1)[1]), put(bad())[2])
    arm.error(400, "VaultNameNotValid", "PUT", arm.path(group, "a--b"), put(bad())[2])
    arm.error(404, "ResourceNotFound", "GET", arm.path(group, "none"))
    arm.error(404, "ResourceGroupNotFound", "GET", arm.path("none", "none"))
    assert arm.call("DELETE", arm.path(group, "none")).status == 204
    text = arm.error(400, "InvalidApiVersionParameter", "GET", path, version="2022-07-02")
    assert "2022-07-01" in text
    arm.error(400, "MissingApiVersionParameter", "GET", path, version=None)
    arm.error(404, "SubscriptionNotFound", "GET", "/subscriptions/11111111-2222-3333-4444-555555555555")


def test_tokens_are_checked(arm: Arm) -> None:
    path = f"/subscriptions/{arm.subscription}"
    bare = arm.call("GET", path, token="")
    assert bare.status == 401 and arm.place.tenant in (bare.header("WWW-Authenticate") or "")
    arm.error(401, "InvalidAuthenticationToken", "GET", path, token="a.b.c")
    vault_token = arm.place.token()
    arm.error(401, "InvalidAuthenticationTokenAudience", "GET", path, token=vault_token)
    # And the other way round.
    management = arm.place.token("https://management.azure.com")
    assert arm.place.call("GET", "/secrets", token=management).status == 401
    with pytest.raises((ClientAuthenticationError, HttpResponseError)):
        arm.resources.resource_groups.get("none")


def test_the_cloud_describes_itself(arm: Arm) -> None:
    def metadata(version: str) -> Any:
        return arm.call("GET", "/metadata/endpoints", version=version, token="").json

    one = metadata("2022-09-01")
    assert one["authentication"]["loginEndpoint"] == "https://login.microsoftonline.com"
    assert one["authentication"]["audiences"][0] == "https://management.core.windows.net/"
    assert one["suffixes"]["keyVaultDns"] == "vault.azure.net"
    assert [cloud["name"] for cloud in metadata("2019-05-01")] == ["AzureCloud"]
    assert set(metadata("2015-01-01")) == {"galleryEndpoint", "graphEndpoint", "portalEndpoint", "authentication"}


def test_lists_come_in_pages(arm: Arm, group: str) -> None:
    for _ in range(3):
        path = arm.path(group, unique("p-"))
        assert arm.call("PUT", path, {"location": "eastus", "properties": arm.properties()}).status == 201
    path, seen = f"{arm.path(group)}/providers/Microsoft.KeyVault/vaults?$top=2&api-version={VAULTS}", []
    while path:
        page = arm.call("GET", path, version=None).json
        assert len(page["value"]) <= 2
        seen += [item["name"] for item in page["value"]]
        path = (page["nextLink"] or "").removeprefix(f"https://{MANAGEMENT}")
    assert len(seen) == len(set(seen)) >= 3


def test_filters_of_the_sdk(arm: Arm) -> None:
    name, tag = unique("f-"), unique("t")
    arm.resources.resource_groups.create_or_update(name, {"location": "eastus", "tags": {tag: "a and b", "x": "y"}})
    vault = {"location": "eastus", "properties": arm.properties(), "tags": {tag: "it's", "x": "y"}}
    assert arm.call("PUT", arm.path(name, name), vault).status == 201

    def groups(condition: str) -> list[str]:
        return [found.name for found in arm.resources.resource_groups.list(filter=condition)]

    def resources(condition: str) -> list[str]:
        return [found.name for found in arm.resources.resources.list(filter=condition)]

    assert groups(f"tagName eq '{tag}' and tagValue eq 'a and b'") == [name]
    assert groups(f"tagName eq '{tag}' and tagValue eq 'y'") == []
    assert resources(f"tagName eq '{tag}' and tagValue eq 'it''s'") == [name]
    assert resources(f"tagName eq '{tag}' and tagValue eq 'y'") == []
    assert resources(f"resourceType eq 'Microsoft.KeyVault/vaults' and name eq '{name}'") == [name]
    for ask in (groups, resources):
        with pytest.raises(HttpResponseError, match="InvalidFilterInQueryString"):
            ask(f"tagName ne '{tag}'")


def test_objects_as_resources(arm: Arm) -> None:
    """Through the SDK: what a vault holds, without what is secret, and without making any of it there."""
    client = KeyVaultManagementClient(arm.credential, arm.subscription, **arm.place.sdk())
    vault, name = arm.place.vault, unique("r-")
    body = json.dumps({"kty": "RSA"}).encode()
    assert arm.place.call("POST", f"/keys/{name}/create", body).status == 200
    assert name in [key.name for key in client.keys.list("claviger", vault)]
    key = client.keys.get("claviger", vault, name)
    assert (key.kty, key.key_size, key.attributes.enabled) == ("RSA", 2048, True)
    versions = [version.name for version in client.keys.list_versions("claviger", vault, name)]
    assert key.key_uri_with_version.endswith(f"/keys/{name}/{versions[0]}") and len(versions) == 1
    assert client.keys.get_version("claviger", vault, name, versions[0]).kty == "RSA"
    with pytest.raises(HttpResponseError, match="NotImplemented"):
        client.keys.create_if_not_exist("claviger", vault, name, {"properties": {"kty": "RSA"}})
