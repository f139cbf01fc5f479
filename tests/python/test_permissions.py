"""The permission matrix: every operation, granted by exactly what it takes and refused by everything else, under access
policies and under roles (contract section 14)."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from typing import Any
from urllib.parse import urlencode

import pytest

from harness import b64url, Cluster, Dev, Place, Reply, eventually

pytestmark = pytest.mark.timeout(300)

SHA256 = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"

# method, path, body, access-policy permission, data action below `Microsoft.KeyVault/vaults/`
OPERATIONS = [
    ("GET", "/keys/{n}", None, "keys get", "keys/read"),
    ("GET", "/keys", None, "keys list", "keys/read"),
    ("GET", "/keys/{n}/versions", None, "keys list", "keys/read"),
    ("GET", "/deletedkeys", None, "keys list", "keys/read"),
    ("GET", "/deletedkeys/{n}", None, "keys get", "keys/read"),
    ("POST", "/keys/{n}/create", {"kty": "EC"}, "keys create", "keys/create/action"),
    ("PUT", "/keys/{n}", {"key": {"kty": "EC"}}, "keys import", "keys/import/action"),
    ("PATCH", "/keys/{n}/", {}, "keys update", "keys/update/action"),
    ("DELETE", "/keys/{n}", None, "keys delete", "keys/delete"),
    ("POST", "/deletedkeys/{n}/recover", None, "keys recover", "keys/recover/action"),
    ("DELETE", "/deletedkeys/{n}", None, "keys purge", "keys/purge/action"),
    ("POST", "/keys/{n}/backup", None, "keys backup", "keys/backup/action"),
    ("POST", "/keys/restore", {"value": "AAAA"}, "keys restore", "keys/restore/action"),
    ("POST", "/keys/{n}/v/encrypt", {}, "keys encrypt", "keys/encrypt/action"),
    ("POST", "/keys/{n}/v/decrypt", {}, "keys decrypt", "keys/decrypt/action"),
    ("POST", "/keys/{n}/v/wrapkey", {}, "keys wrapKey", "keys/wrap/action"),
    ("POST", "/keys/{n}/v/unwrapkey", {}, "keys unwrapKey", "keys/unwrap/action"),
    ("POST", "/keys/{n}/v/sign", {"alg": "ES256", "value": SHA256}, "keys sign", "keys/sign/action"),
    ("POST", "/keys/{n}/v/verify", {}, "keys verify", "keys/verify/action"),
    ("POST", "/keys/{n}/rotate", None, "keys rotate", "keys/rotate/action"),
    ("GET", "/keys/{n}/rotationpolicy", None, "keys getrotationpolicy", "keyrotationpolicies/read"),
    ("PUT", "/keys/{n}/rotationpolicy", {}, "keys setrotationpolicy", "keyrotationpolicies/write"),
    ("POST", "/keys/{n}/v/release", {}, "keys release", "keys/release/action"),
    ("GET", "/secrets/{n}", None, "secrets get", "secrets/getSecret/action"),
    ("GET", "/secrets", None, "secrets list", "secrets/readMetadata/action"),
    ("GET", "/secrets/{n}/versions", None, "secrets list", "secrets/readMetadata/action"),
    ("GET", "/deletedsecrets", None, "secrets list", "secrets/readMetadata/action"),
    ("GET", "/deletedsecrets/{n}", None, "secrets get", "secrets/readMetadata/action"),
    ("PUT", "/secrets/{n}", {"value": "x"}, "secrets set", "secrets/setSecret/action"),
    ("PATCH", "/secrets/{n}/", {}, "secrets set", "secrets/update/action"),
    ("DELETE", "/secrets/{n}", None, "secrets delete", "secrets/delete"),
    ("POST", "/deletedsecrets/{n}/recover", None, "secrets recover", "secrets/recover/action"),
    ("DELETE", "/deletedsecrets/{n}", None, "secrets purge", "secrets/purge/action"),
    ("POST", "/secrets/{n}/backup", None, "secrets backup", "secrets/backup/action"),
    ("POST", "/secrets/restore", {"value": "AAAA"}, "secrets restore", "secrets/restore/action"),
]

KEYS = (
    "encrypt decrypt wrapKey unwrapKey sign verify get list create update import delete backup restore recover purge "
    "release rotate getrotationpolicy setrotationpolicy"
).split()
SECRETS = "get list set delete backup restore recover purge".split()
EVERYTHING = {"keys": KEYS, "secrets": SECRETS}


def ident(operation: tuple[Any, ...]) -> str:
    return f"{operation[0]} {operation[1]}"


class World:
    """A vault for each model, and an application that has nothing but what a test gives it."""

    def __init__(self, place: Place, subscription: str):
        self.place, self.subscription = place, subscription
        self.management, self.directory = "management.azure.com", "graph.microsoft.com"
        if place.own_domain:
            below = place.resource.removeprefix("https://vault.")
            self.management, self.directory = f"management.{below}", f"graph.{below}"
        self.group = f"perm-{random.randrange(1 << 32):08x}"
        base = f"/subscriptions/{self.subscription}"
        self.arm("PUT", f"{base}/resourceGroups/{self.group}", {"location": "eastus"})
        self.vaults = {}
        for model in ("policies", "roles"):
            name = f"{model}-{random.randrange(1 << 32):08x}"
            path = f"{base}/resourceGroups/{self.group}/providers/Microsoft.KeyVault/vaults/{name}"
            properties = {
                "tenantId": place.tenant,
                "sku": {"family": "A", "name": "standard"},
                "accessPolicies": [],
                "enableRbacAuthorization": model == "roles",
            }
            self.arm("PUT", path, {"location": "eastus", "properties": properties})
            self.vaults[model] = (name, path)
        application = self.graph("POST", "/applications", {"displayName": "matrix"})
        secret = self.graph("POST", f"/applications/{application['id']}/addPassword", {})["secretText"]
        self.oid = self.graph("POST", "/servicePrincipals", {"appId": application["appId"]})["id"]
        form = {
            "client_id": application["appId"],
            "client_secret": secret,
            "grant_type": "client_credentials",
            "scope": f"{place.resource}/.default",
        }
        reply = place.http.request(
            "POST", place.login_host, f"/{place.tenant}/oauth2/v2.0/token", urlencode(form).encode(),
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        self.token = reply.json["access_token"]

    def request(self, host: str, method: str, target: str, body: Any) -> Any:
        token = self.place.token(f"https://{host}")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        reply = self.place.http.request(method, host, target, data, headers)
        assert reply.status < 300, reply
        return reply.json if reply.body else None

    def arm(self, method: str, path: str, body: Any = None) -> Any:
        target = f"{path}?api-version=2022-07-01"
        return self.request(self.management, method, target, body)

    def graph(self, method: str, path: str, body: Any = None) -> Any:
        return self.request(self.directory, method, f"/v1.0{path}", body)

    def policies(self, permissions: dict[str, list[str]]) -> None:
        entry = {"tenantId": self.place.tenant, "objectId": self.oid, "permissions": permissions}
        body = {"properties": {"accessPolicies": [entry]}}
        self.arm("PATCH", self.vaults["policies"][1], body)

    def call(self, model: str, operation: tuple[Any, ...]) -> Reply:
        method, path, body, _, _ = operation
        name = self.vaults[model][0]
        return self.place.call(method, path.format(n="none"), body, vault=name, token=self.token)


@pytest.fixture(scope="module")
def world(dev: Dev, dev_place: Place) -> World:
    return World(dev_place, dev.environment()["AZURE_SUBSCRIPTION_ID"])


def forbidden(reply: Reply, inner: str) -> bool:
    if reply.status != 403:
        return False
    assert reply.json["error"]["innererror"]["code"] == inner, reply
    return True


@pytest.mark.parametrize("operation", OPERATIONS, ids=ident)
def test_policies(world: World, operation: tuple[Any, ...]) -> None:
    kind, permission = operation[3].split()
    world.policies({kind: [permission]})
    assert not forbidden(world.call("policies", operation), "ForbiddenByPolicy")
    others = {k: [p for p in all if (k, p) != (kind, permission)] for k, all in EVERYTHING.items()}
    world.policies(others)
    refused = world.call("policies", operation)
    assert forbidden(refused, "ForbiddenByPolicy"), refused
    assert f"does not have {kind} {permission} permission" in refused.json["error"]["message"]
    world.policies({"keys": ["all"], "secrets": ["ALL"]})
    assert forbidden(world.call("policies", operation), "ForbiddenByPolicy") is (permission == "purge")


@pytest.fixture(scope="module")
def role(world: World) -> str:
    """A custom role that is assigned to the application in the vault with roles; tests say what it allows."""
    scope = f"/subscriptions/{world.subscription}"
    path = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
    define(world, path, [], [])
    vault = world.vaults["roles"][1]
    body = {"properties": {"roleDefinitionId": path, "principalId": world.oid}}
    world.arm("PUT", f"{vault}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}", body)
    return path


def define(world: World, path: str, data: list[str], not_data: list[str]) -> None:
    actions = {"dataActions": data, "notDataActions": not_data}
    scopes = [f"/subscriptions/{world.subscription}"]
    body = {"properties": {"roleName": path[-36:], "permissions": [actions], "assignableScopes": scopes}}
    world.arm("PUT", path, body)


@pytest.mark.parametrize("operation", OPERATIONS, ids=ident)
def test_roles(world: World, role: str, operation: tuple[Any, ...]) -> None:
    action = f"Microsoft.KeyVault/vaults/{operation[4]}"
    define(world, role, [action], [])
    granted = world.call("roles", operation)
    assert not forbidden(granted, "ForbiddenByRbac")
    define(world, role, ["Microsoft.KeyVault/vaults/*"], [action])
    refused = world.call("roles", operation)
    assert forbidden(refused, "ForbiddenByRbac"), refused
    assert f"Action: '{action}'" in refused.json["error"]["message"]


def test_a_reader_of_an_asymmetric_key_may_do_what_its_public_half_can(world: World, role: str) -> None:
    vault = world.vaults["roles"][0]
    administrator = "00482a5a-887f-4fb3-b363-3b7fe8e74483"
    owner = world.place.claims()["oid"]
    definition = f"/subscriptions/{world.subscription}/providers/Microsoft.Authorization/roleDefinitions/{administrator}"
    scope = world.vaults["roles"][1]
    path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    world.arm("PUT", path, {"properties": {"roleDefinitionId": definition, "principalId": owner}})
    for name, key in (("public", {"kty": "RSA"}), ("curve", {"kty": "EC"}), ("secret", {"kty": "oct"})):
        made = world.place.call("POST", f"/keys/{name}/create", key, vault=vault)
        assert made.status == 200, made
    define(world, role, ["Microsoft.KeyVault/vaults/keys/read"], [])

    def call(name: str, operation: str, body: dict[str, Any]) -> Reply:
        return world.place.call("POST", f"/keys/{name}/{operation}", body, vault=vault, token=world.token)

    data = b64url(b"m" * 32)
    assert call("public", "encrypt", {"alg": "RSA-OAEP-256", "value": data}).status == 200
    assert call("public", "wrapkey", {"alg": "RSA-OAEP-256", "value": data}).status == 200
    assert call("curve", "verify", {"alg": "ES256", "digest": data, "value": b64url(b"s" * 64)}).json == {"value": False}
    assert forbidden(call("public", "decrypt", {"alg": "RSA-OAEP-256", "value": data}), "ForbiddenByRbac")
    assert forbidden(call("public", "unwrapkey", {"alg": "RSA-OAEP-256", "value": data}), "ForbiddenByRbac")
    assert forbidden(call("curve", "sign", {"alg": "ES256", "value": data}), "ForbiddenByRbac")
    assert forbidden(call("secret", "encrypt", {"alg": "A128GCM", "value": data}), "ForbiddenByRbac")
    assert forbidden(call("nobody", "encrypt", {"alg": "RSA-OAEP-256", "value": data}), "ForbiddenByRbac")


def test_a_granted_answer_names_the_assignment(world: World, role: str) -> None:
    define(world, role, ["Microsoft.KeyVault/vaults/secrets/readMetadata/action"], [])
    reply = world.place.call("GET", "/secrets", vault=world.vaults["roles"][0], token=world.token)
    assert reply.status == 200
    assert uuid.UUID(reply.header("x-ms-keyvault-rbac-assignment-id"))


def test_a_role_that_is_taken_back_is_gone_at_once(world: World) -> None:
    vault = world.vaults["roles"][1]
    secrets_user = "4633458b-17de-408a-b874-0445c86b69e6"
    definition = f"/subscriptions/{world.subscription}/providers/Microsoft.Authorization/roleDefinitions/{secrets_user}"
    read = ("GET", "/secrets/never-set", None, "", "")
    for scope, granted in ((vault, True), (f"{vault}/secrets/Never-Set", True), (f"{vault}/secrets/never", False)):
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        assert forbidden(world.call("roles", read), "ForbiddenByRbac")
        world.arm("PUT", path, {"properties": {"roleDefinitionId": definition, "principalId": world.oid}})
        assert (world.call("roles", read).status == 404) is granted, scope
        world.arm("DELETE", path)
        assert forbidden(world.call("roles", read), "ForbiddenByRbac")


def test_no_node_honours_a_role_that_was_taken_back_under_load(cluster: Cluster) -> None:
    places = cluster.places()
    world = World(places[0], cluster.credentials["subscription_id"])
    name, vault = world.vaults["roles"]
    secrets_user = "4633458b-17de-408a-b874-0445c86b69e6"
    definition = f"/subscriptions/{world.subscription}/providers/Microsoft.Authorization/roleDefinitions/{secrets_user}"
    path = f"{vault}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    world.arm("PUT", path, {"properties": {"roleDefinitionId": definition, "principalId": world.oid}})

    stop = threading.Event()
    # (node, when the call began, status)
    calls: list[tuple[str, float, int]] = []

    def load(place: Place) -> None:
        while not stop.is_set():
            began = time.monotonic()
            reply = place.call("GET", "/secrets", vault=name, token=world.token)
            calls.append((place.name, began, reply.status))

    threads = [threading.Thread(target=load, args=(place,)) for place in places for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for place in places:
            eventually("calls succeed", lambda place=place: sum(c[0] == place.name for c in calls) > 20)
        world.arm("DELETE", path)
        gone = time.monotonic()
        before = len(calls)
        for place in places:
            eventually("calls go on", lambda place=place: sum(c[0] == place.name for c in calls[before:]) > 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {node for node, _, status in calls if status == 200} == {place.name for place in places}
    assert {status for _, began, status in calls if began >= gone} == {403}
