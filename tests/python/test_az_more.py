"""`az` where a setting of the service decides (policies although roles are asked for, default release policies); a user
through an application; and what the resource manager says about things that are not here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import harness
from harness import Dev, b64url
from test_az import Az, az, group, unique, vault  # noqa: F401
from test_management import Arm

# The application that `az` itself is when a user signs in.
AZ_ITSELF = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
AUTHORITY = "https://attest.example"

# One az command takes a second, and more on a busy machine.
pytestmark = pytest.mark.timeout(300)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def willing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A server that prefers policies, and believes an attestation authority."""
    directory = tmp_path_factory.mktemp("willing")
    numbers = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
    key = {"kty": "RSA", "kid": "1", "n": b64url(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    (directory / "keys.json").write_text(json.dumps({"keys": [key]}))
    options = (
        "--policies-where-rbac-is-asked",
        *("--attestation-authority", f"{AUTHORITY}={directory / 'keys.json'}"),
    )
    with harness.dev_server(directory / "data", options=options) as server:
        yield server


@pytest.fixture(scope="module")
def inclined(az: Az, willing: Dev) -> Az:  # noqa: F811
    """`az` at that server; `az` before it makes sure that there is one."""
    there = Az(willing)
    there.login(there.application, there.secret)
    there("group", "create", "-n", "g", "-l", "eastus")
    return there


def test_policies_although_roles_are_asked_for(inclined: Az) -> None:
    """The quickstart of 2020 word for word: no `--enable-rbac-authorization`, and then `set-policy`."""
    name = unique("kv-")
    made = inclined("keyvault", "create", "-n", name, "-g", "g")
    assert made["properties"]["enableRbacAuthorization"] is False
    secret = ("keyvault", "secret", "set", "--vault-name", name, "-n", "s", "--value", "x")
    # Nobody is let in by that, and a role opens nothing.
    inclined.refused(1, "secrets set permission", *secret)
    role = ("--role", "Key Vault Secrets Officer", "--assignee", inclined.application, "--scope", made["id"])
    inclined("role", "assignment", "create", *role)
    inclined.refused(1, "secrets set permission", *secret)
    inclined("keyvault", "set-policy", "-n", name, "--spn", inclined.application, "--secret-permissions", "set")
    inclined(*secret)
    # Only the creation is read so: who changes a vault is taken at their word.
    changed = inclined("keyvault", "update", "-n", name, "--enable-rbac-authorization", "true")
    assert changed["properties"]["enableRbacAuthorization"] is True
    inclined("keyvault", "secret", "show", "--vault-name", name, "-n", "s")


def test_the_setting_holds_for_every_version(willing: Dev) -> None:
    arm = Arm(willing, willing.place())
    arm.resources.resource_groups.create_or_update("versions", {"location": "eastus"})
    for version in ("2022-07-01", "2025-05-01", "2026-02-01", "2026-05-15"):
        for asked in ({}, {"enableRbacAuthorization": True}, {"enableRbacAuthorization": False}):
            body = {"location": "eastus", "properties": arm.properties(**asked)}
            made = arm.call("PUT", arm.path("versions", unique("v-")), body, version)
            rbac = made.json["properties"]["enableRbacAuthorization"]
            assert (made.status, rbac) == (201, False), (version, asked)


def test_without_the_setting_the_request_decides(dev: Dev) -> None:
    arm = Arm(dev, dev.place())
    arm.resources.resource_groups.create_or_update("versions", {"location": "eastus"})
    defaults = {"2022-07-01": False, "2025-05-01": False, "2026-02-01": True, "2026-05-15": True}
    # `null` is the same as nothing.
    requests = [({}, None), *(({"enableRbacAuthorization": said}, said) for said in (None, True, False))]
    for version, (asked, said) in itertools.product(defaults, requests):
        body = {"location": "eastus", "properties": arm.properties(**asked)}
        made = arm.call("PUT", arm.path("versions", unique("v-")), body, version)
        rbac = defaults[version] if said is None else said
        assert (made.status, made.json["properties"]["enableRbacAuthorization"]) == (201, rbac), (version, asked)
    # Without access policies a vault that is to have them is not made, and one with roles is.
    bare = arm.properties()
    del bare["accessPolicies"]
    body = {"location": "eastus", "properties": bare}
    arm.error(400, "BadRequest", "PUT", arm.path("versions", unique("v-")), body, version="2025-05-01")
    assert arm.call("PUT", arm.path("versions", unique("v-")), body, "2026-02-01").status == 201


def test_default_release_policies(az: Az, vault: str, inclined: Az) -> None:  # noqa: F811
    """`--default-cvm-policy` asks the resource manager whom to believe."""
    kind = ("--kty", "RSA-HSM", "--exportable", "true", "--default-cvm-policy")
    create = ("keyvault", "key", "create", "-n", "k", *kind)
    az.refused(1, "no attestation authority is configured", *create, "--vault-name", vault)
    made = inclined(*create, "--vault-name", "demo")
    assert made["attributes"]["exportable"] is True
    policy = json.loads(made["releasePolicy"]["encodedPolicy"])
    assert [authority["authority"] for authority in policy["anyOf"]] == [AUTHORITY]


# --- two in one ------------------------------------------------------------------------------------------------------


def test_a_user_through_an_application(az: Az, vault: str, tmp_path: Path) -> None:  # noqa: F811
    """An entry with `applicationId` is for that user through that application, and through no other."""
    upn, password = f"{unique('carol-')}@example.com", "correct horse battery"
    oid = az("ad", "user", "create", "--display-name", "C", "--user-principal-name", upn, "--password", password)["id"]
    scope = f"/subscriptions/{az.subscription}"
    az("role", "assignment", "create", "--role", "Reader", "--assignee", upn, "--scope", scope)
    own = {"AZURE_CONFIG_DIR": str(tmp_path / "own")}
    az("login", "-u", upn, "-p", password, env=own)
    secret = ("keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "x")

    def entry(command: str, application: str, *more: str) -> list[dict[str, Any]]:
        who = ("--object-id", oid, "--application-id", application)
        made = az("keyvault", command, "-n", vault, *who, *more)
        return [found for found in made["properties"]["accessPolicies"] if found["objectId"] == oid]

    other = "11111111-2222-3333-4444-555555555555"
    assert entry("set-policy", other, "--secret-permissions", "set")[0]["applicationId"] == other
    az.refused(1, "secrets set permission", *secret, env=own)
    assert len(entry("set-policy", AZ_ITSELF, "--secret-permissions", "set")) == 2
    az(*secret, env=own)
    az.refused(1, "secrets get permission", "keyvault", "secret", "show", "--vault-name", vault, "-n", "s", env=own)
    assert [found["applicationId"] for found in entry("delete-policy", AZ_ITSELF)] == [other]
    az.refused(1, "secrets set permission", *secret, env=own)
    az.refused(1, "No matching policies", "keyvault", "delete-policy", "-n", vault, "--object-id", oid)


# --- what is not here ------------------------------------------------------------------------------------------------


def test_there_are_no_private_endpoints(az: Az, vault: str) -> None:  # noqa: F811
    at = ("--vault-name", vault, "-n", "pe")
    for command in ("approve", "delete", "reject", "show"):
        az.refused(3, "no private endpoint", "keyvault", "private-endpoint-connection", command, *at)
    missing = ("keyvault", "private-endpoint-connection", "show", "--vault-name", unique("kv-"), "-g", "claviger")
    az.refused(3, "was not found", *missing, "-n", "pe")


def test_there_are_no_managed_hsms(az: Az, group: str) -> None:  # noqa: F811
    hsm = ("--hsm-name", "h", "-g", group)
    for command in (
        ("create", *hsm, "-l", "eastus", "--retention-days", "7", "--administrators", az.application),
        ("show", *hsm),
        ("update-hsm", *hsm),
        ("region", "list", *hsm),
        ("region", "add", *hsm, "--region", "westus"),
        ("private-endpoint-connection", "list", *hsm),
    ):
        az.refused(3, "There are no managed HSMs", "keyvault", *command)


def test_other_paths_are_named_whole(dev: Dev) -> None:
    arm = Arm(dev, dev.place())
    for path in (
        f"/subscriptions/{arm.subscription}/providers/Microsoft.Storage/storageAccounts",
        f"{arm.path('claviger')}/providers/Microsoft.Network/virtualNetworks/v",
        f"{arm.path('claviger', 'demo')}/fly",
        "/none",
    ):
        # The version is another provider's business: none of Key Vault's.
        text = arm.error(404, "InvalidResourceType", "GET", path, version="2022-07-01")
        assert f"'GET {path}'" in text
    elsewhere = f"/subscriptions/{arm.subscription}/providers/Microsoft.Storage/storageAccounts"
    arm.error(404, "InvalidResourceType", "GET", elsewhere, version="2019-06-01")
