"""Access policies: every operation needs its permission, and nothing else is told before (contract section 14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from conftest import clients_of
from harness import Cluster, Place, must, run

DIGEST = "A" * 43
NONE = "00000000000000000000000000000000"

# Operation, body, and the permission that it takes.
OPERATIONS: list[tuple[str, Any, str]] = [
    ("POST /keys/N/create", {"kty": "EC"}, "keys create"),
    ("PUT /keys/N", {"key": {"kty": "EC"}}, "keys import"),
    ("POST /keys/N/rotate", None, "keys rotate"),
    ("GET /keys/N", None, "keys get"),
    ("GET /keys/N/V", None, "keys get"),
    ("PATCH /keys/N/V", {}, "keys update"),
    ("GET /keys", None, "keys list"),
    ("GET /keys/N/versions", None, "keys list"),
    ("DELETE /keys/N", None, "keys delete"),
    ("GET /deletedkeys", None, "keys list"),
    ("GET /deletedkeys/N", None, "keys get"),
    ("POST /deletedkeys/N/recover", None, "keys recover"),
    ("DELETE /deletedkeys/N", None, "keys purge"),
    ("POST /keys/N/backup", None, "keys backup"),
    ("POST /keys/restore", {"value": "AA"}, "keys restore"),
    ("POST /keys/N/V/encrypt", {"alg": "RSA-OAEP", "value": "AA"}, "keys encrypt"),
    ("POST /keys/N/V/decrypt", {"alg": "RSA-OAEP", "value": "AA"}, "keys decrypt"),
    ("POST /keys/N/V/wrapkey", {"alg": "RSA-OAEP", "value": "AA"}, "keys wrapKey"),
    ("POST /keys/N/V/unwrapkey", {"alg": "RSA-OAEP", "value": "AA"}, "keys unwrapKey"),
    ("POST /keys/N/V/sign", {"alg": "ES256", "value": DIGEST}, "keys sign"),
    ("POST /keys/N/V/verify", {"alg": "ES256", "digest": DIGEST, "value": "AA"}, "keys verify"),
    ("POST /keys/N/V/release", {"target": "a.b.c"}, "keys release"),
    ("GET /keys/N/rotationpolicy", None, "keys getrotationpolicy"),
    ("PUT /keys/N/rotationpolicy", {}, "keys setrotationpolicy"),
    ("PUT /secrets/N", {"value": "v"}, "secrets set"),
    ("PATCH /secrets/N/V", {}, "secrets set"),
    ("GET /secrets/N", None, "secrets get"),
    ("GET /secrets/N/V", None, "secrets get"),
    ("GET /secrets", None, "secrets list"),
    ("GET /secrets/N/versions", None, "secrets list"),
    ("DELETE /secrets/N", None, "secrets delete"),
    ("GET /deletedsecrets", None, "secrets list"),
    ("GET /deletedsecrets/N", None, "secrets get"),
    ("POST /deletedsecrets/N/recover", None, "secrets recover"),
    ("DELETE /deletedsecrets/N", None, "secrets purge"),
    ("POST /secrets/N/backup", None, "secrets backup"),
    ("POST /secrets/restore", {"value": "AA"}, "secrets restore"),
]


@pytest.fixture(scope="module")
def owner(cluster: Cluster) -> Place:
    return cluster.places()[0]


@pytest.fixture(scope="module")
def stranger(cluster: Cluster) -> Place:
    """An application of the same tenant that no vault knows, at another node."""
    made = must(
        "identity", "create-application", "--config", str(cluster.nodes[0].config), "--display-name", "stranger"
    )
    return cluster.place(cluster.nodes[1], made.json())


@pytest.mark.parametrize(("operation", "body", "permission"), OPERATIONS, ids=[row[0] for row in OPERATIONS])
@pytest.mark.parametrize("exists", [False, True], ids=["missing", "there"])
def test_without_a_policy(
    owner: Place, stranger: Place, names: Callable[[], str], operation: str, body: Any, permission: str, exists: bool
) -> None:
    """403 in the contract's words, whether the object is there or not, and nothing happens."""
    name = names()
    if exists:
        owner.ok("PUT", f"/secrets/{name}", {"value": "v"})
        owner.ok("POST", f"/keys/{name}/create", {"kty": "EC"})
    method, path = operation.replace("N", name).replace("/V", f"/{NONE}").split(" ")
    reply = stranger.call(method, path, body)
    assert reply.status == 403, reply
    assert reply.error["code"] == "Forbidden"
    assert reply.error["innererror"] == {"code": "ForbiddenByPolicy"}
    claims = stranger.claims()
    assert reply.error["message"] == (
        f"The user, group or application 'appid={stranger.client_id};oid={claims['oid']};iss={claims['iss']}' does not "
        f"have {permission} permission on key vault 'demo;location=local'. For help resolving this issue, please see "
        "https://go.microsoft.com/fwlink/?linkid=2125287"
    )
    for kind in ("secrets", "keys"):
        live = owner.call("GET", f"/{kind}/{name}")
        assert live.status == (200 if exists else 404)
        assert len(owner.ok("GET", f"/{kind}/{name}/versions")["value"]) == int(exists)


def test_names_and_versions_of_the_interface_come_before_permissions(stranger: Place) -> None:
    assert stranger.call("GET", "/secrets/a_b").error["code"] == "BadParameter"
    assert stranger.call("GET", "/secrets/a", version="7.9").error["code"] == "BadParameter"
    # Bodies come after them: a stranger does not learn what a good one is.
    assert stranger.call("PUT", "/secrets/a", b"{").status == 403
    assert stranger.call("PUT", "/secrets/a", {"value": 1}).status == 403


def test_sdk_raises(stranger: Place) -> None:
    with pytest.raises(HttpResponseError, match="does not have secrets get permission") as caught:
        clients_of(stranger).secrets.get_secret("anything")
    assert (caught.value.status_code, caught.value.error.code) == (403, "Forbidden")


def test_a_vault_of_the_strangers_own(cluster: Cluster, owner: Place, stranger: Place) -> None:
    """Rights end at the vault: he may do everything in his, and the owner of the first one nothing."""
    config = str(cluster.nodes[2].config)
    must("vault", "create", "--config", config, "--name", "strangers", "--client-id", stranger.client_id)
    for i, place in enumerate(cluster.places()):
        reply = cluster.place(cluster.nodes[i], stranger.credentials()).call(
            "PUT", "/secrets/mine", {"value": "v"}, vault="strangers"
        )
        assert reply.status == 200, reply
        assert reply.json["id"].startswith(place.url("strangers"))
    assert owner.call("GET", "/secrets/mine", vault="strangers").error["innererror"]["code"] == "ForbiddenByPolicy"
    assert stranger.call("GET", "/secrets/mine").status == 403


def test_kinds_of_vaults(cluster: Cluster, owner: Place) -> None:
    """Retention, purge protection and SKU show in what a vault's objects say and allow (contract sections 6 and 8)."""
    config = str(cluster.nodes[0].config)
    for name, options, level, days in (
        ("short", ["--retention-days", "7"], "CustomizedRecoverable+Purgeable", 7),
        ("kept", ["--purge-protection"], "Recoverable", 90),
        ("short-kept", ["--retention-days", "30", "--purge-protection", "--standard"], "CustomizedRecoverable", 30),
    ):
        must("vault", "create", "--config", config, "--name", name, "--client-id", owner.client_id, *options)
        stored = owner.ok("PUT", "/secrets/s", {"value": "v"}, vault=name)
        assert (stored["attributes"]["recoveryLevel"], stored["attributes"]["recoverableDays"]) == (level, days)
        gone = owner.ok("DELETE", "/secrets/s", vault=name)
        assert gone["scheduledPurgeDate"] - gone["deletedDate"] == days * 86_400
        purge = owner.call("DELETE", "/deletedsecrets/s", vault=name)
        if "Purgeable" in level:
            assert purge.status == 204
        else:
            assert (purge.status, purge.error["code"]) == (403, "Forbidden")
            assert purge.error["message"] == (
                'Operation "purge" is not allowed because purge protection is enabled for this vault. Key Vault '
                "service will automatically purge it after the retention period has passed."
            )
            owner.ok("POST", "/deletedsecrets/s/recover", vault=name)
            assert owner.ok("GET", "/secrets/s", vault=name)["value"] == "v"
    refusal = owner.call("POST", "/keys/k/create", {"kty": "RSA-HSM"}, vault="short-kept")
    assert refusal.status in (400, 403) and "premium" in refusal.error["message"]


@pytest.mark.parametrize("name", ["a", "1abc", "a--b", "ends-", "x" * 25, "under_score"])
def test_names_of_vaults(cluster: Cluster, owner: Place, name: str) -> None:
    config = str(cluster.nodes[0].config)
    done = run("vault", "create", "--config", config, "--name", name, "--client-id", owner.client_id)
    assert done.code > 0 and done.err.strip() and "panicked" not in done.err, done


def test_a_vaults_name_is_taken_once(cluster: Cluster, owner: Place) -> None:
    config = str(cluster.nodes[0].config)
    for name in ("demo", "DEMO"):
        done = run("vault", "create", "--config", config, "--name", name, "--client-id", owner.client_id)
        assert done.code > 0 and done.err.strip(), done
