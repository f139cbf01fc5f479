"""Several tenants in one world: each has a directory, a subscription and vaults, and sees nothing of another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

import harness
from harness import Cluster, Place, Reply
from test_users import graph

VAULTS = "2023-07-01"


def manage(place: Place, method: str, path: str, body: Any = None, version: str = VAULTS) -> Reply:
    host = place.login_host.replace("login.", "management.")
    headers = {"Authorization": f"Bearer {place.token(f'https://{host}')}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    return place.http.request(method, host, f"{path}?api-version={version}", data, headers)


def make_tenant(cluster: Cluster, name: str) -> dict[str, Any]:
    config = str(cluster.nodes[1].config)
    domain = ("--display-name", name, "--domain", f"{name}.example.com")
    return harness.must("identity", "create-tenant", "--config", config, *domain).json()


def make_vault(place: Place, subscription: str, vault: str, oid: str) -> Reply:
    policies = [{"tenantId": place.tenant, "objectId": oid, "permissions": {"secrets": ["all"]}}]
    properties = {"tenantId": place.tenant, "sku": {"family": "A", "name": "standard"}, "accessPolicies": policies}
    path = f"/subscriptions/{subscription}/resourceGroups/claviger/providers/Microsoft.KeyVault/vaults/{vault}"
    return manage(place, "PUT", path, {"location": "local", "properties": properties})


@pytest.fixture(scope="module")
def tenants(cluster: Cluster) -> list[dict[str, Any]]:
    return [make_tenant(cluster, name) for name in ("contoso", "fabrikam")]


def test_each_tenant_has_its_own(cluster: Cluster, tenants: list[dict[str, Any]]) -> None:
    first = cluster.places()[0]
    vaults = []
    for number, made in enumerate(tenants):
        # A different node for each of its steps.
        here, there, third = (cluster.place(node, made) for node in cluster.nodes)
        vault = f"tenant-{number}"
        assert make_vault(here, made["subscription_id"], vault, made["object_id"]).status in (200, 201)
        vaults.append((there, vault))
        assert there.call("PUT", "/secrets/s", {"value": f"of {number}"}, vault=vault).status == 200
        assert third.ok("GET", "/secrets/s", vault=vault)["value"] == f"of {number}"
        listed = manage(third, "GET", "/subscriptions", version="2022-12-01").json["value"]
        assert [found["subscriptionId"] for found in listed] == [made["subscription_id"]]
        listed = manage(here, "GET", "/tenants", version="2022-12-01").json["value"]
        assert [found["tenantId"] for found in listed] == [made["tenant_id"]]

    # Names of vaults are unique in a region, whosever they are.
    taken = make_vault(cluster.place(cluster.nodes[0], tenants[1]), tenants[1]["subscription_id"], "tenant-0", "x" * 36)
    assert taken.status in (400, 409), taken
    # Nobody enters another one's vault: not even a token of the first tenant, which may do everything in its own.
    for place, vault in vaults:
        others = [other for other, _ in vaults if other is not place] + [first]
        for other in others:
            reply = place.call("GET", "/secrets/s", vault=vault, token=other.token())
            assert (reply.status, reply.json["error"]["message"][:8]) == (401, "AKV10032"), reply
            challenge = reply.header("WWW-Authenticate") or ""
            assert f"/{place.tenant}\"" in challenge, "it says where to sign in"
    # Nor its subscription.
    for made, other in zip(tenants, reversed(tenants), strict=True):
        stranger = cluster.place(cluster.nodes[0], other)
        path = f"/subscriptions/{made['subscription_id']}"
        for below in ("/resourceGroups", "/providers/Microsoft.KeyVault/vaults", "/resources"):
            reply = manage(stranger, "GET", path + below)
            assert reply.status in (401, 403, 404) and "tenant-" not in str(reply.body), reply


def test_directories_are_apart(cluster: Cluster, tenants: list[dict[str, Any]]) -> None:
    here, there = (cluster.place(cluster.nodes[2], made) for made in tenants)
    user = {
        "userPrincipalName": "alice@contoso.example.com",
        "displayName": "Alice",
        "passwordProfile": {"password": "correct horse battery"},
    }
    made = graph(here, "POST", "/users", user)
    assert made.status == 201, made
    seen = [found["id"] for found in graph(here, "GET", "/users").json["value"]]
    assert seen == [made.json["id"]]
    assert graph(there, "GET", "/users").json["value"] == []
    assert graph(there, "GET", f"/users/{made.json['id']}").status == 404
    assert graph(there, "DELETE", f"/users/{made.json['id']}").status == 404
    applications = graph(there, "GET", "/applications").json["value"]
    assert [found["appId"] for found in applications] == [tenants[1]["client_id"]]
    # An application signs in where it is at home, by id or by domain.
    for tenant, status in ((tenants[0]["tenant_id"], 200), ("contoso.example.com", 200), (tenants[1]["tenant_id"], 400)):
        form = f"grant_type=client_credentials&client_id={here.client_id}&client_secret={here.client_secret}"
        body = f"{form}&scope={here.resource}/.default".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = here.http.request("POST", here.login_host, f"/{tenant}/oauth2/v2.0/token", body, headers)
        assert reply.status == status, (tenant, reply)


def test_tenants_are_listed_and_names_are_checked(cluster: Cluster, tenants: list[dict[str, Any]]) -> None:
    config = ("--config", str(cluster.nodes[2].config))
    listed = harness.must("identity", "list-tenants", *config).json()
    # What makes an application without naming a tenant means this one.
    assert listed[0]["tenantId"] == cluster.credentials["tenant_id"]
    assert {"contoso.example.com", "fabrikam.example.com"} <= {found["defaultDomain"] for found in listed}
    for domain, why in (
        ("contoso.example.com", "exists already"),
        ("common", "no domain"),
        ("Contoso.example.com", "no domain"),
        ("-.example.com", "no domain"),
    ):
        done = harness.run("identity", "create-tenant", *config, "--display-name", "x", f"--domain={domain}")
        assert done.code == 1 and why in done.err, done
    made = harness.must("identity", "create-application", *config, "--display-name", "of the first").json()
    assert made["tenant_id"] == cluster.credentials["tenant_id"]
