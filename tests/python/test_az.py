"""The real `az`, unmodified, through `claviger exec`: sign in, groups, vaults, policies, network rules, roles, the
directory, and the quickstart from beginning to end."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import pty
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

import harness
from harness import Cluster, Dev, Finished, Place

ROOT = Path(__file__).resolve().parents[2]
AZ = ROOT / ".venv-az" / "bin" / "az"

# One az command takes a second; a test runs up to two dozen.
pytestmark = pytest.mark.timeout(300)


def unique(prefix: str) -> str:
    return f"{prefix}{random.randrange(1 << 32):08x}"


class Az:
    """`az` against one dev server, signed in as the first application."""

    def __init__(self, dev: Dev):
        self.dev = dev
        env = dev.environment()
        self.application, self.subscription = env["AZURE_CLIENT_ID"], env["AZURE_SUBSCRIPTION_ID"]
        self.tenant, self.secret = env["AZURE_TENANT_ID"], env["AZURE_CLIENT_SECRET"]

    def run(self, *args: str, env: dict[str, str] | None = None) -> Finished:
        return harness.run("exec", "--data-dir", str(self.dev.directory), "--", str(AZ), *args, env=env, patience=120)

    def __call__(self, *args: str, env: dict[str, str] | None = None) -> Any:
        done = self.run(*args, env=env)
        assert done.code == 0, f"az {' '.join(args)}: {done.code}\n{done.out}\n{done.err}"
        return json.loads(done.out) if done.out.strip() else None

    def refused(self, code: int, text: str, *args: str, env: dict[str, str] | None = None) -> None:
        done = self.run(*args, env=env)
        assert (done.code, text in done.err) == (code, True), f"az {' '.join(args)}: {done.code}\n{done.err}"

    def login(self, application: str, secret: str, env: dict[str, str] | None = None, *more: str) -> Any:
        return self(
            "login", "--service-principal", "-u", application, "-p", secret, "--tenant", self.tenant, *more, env=env
        )


@pytest.fixture(scope="module")
def az(dev: Dev) -> Iterator[Az]:
    subprocess.run([str(ROOT / "tests" / "python" / "az-venv.sh")], check=True, timeout=600)
    az = Az(dev)
    accounts = az.login(az.application, az.secret)
    assert [a["id"] for a in accounts] == [az.subscription]
    yield az


@pytest.fixture(scope="module")
def group(az: Az) -> str:
    name = unique("rg-")
    az("group", "create", "-n", name, "-l", "eastus")
    return name


@pytest.fixture
def vault(az: Az, group: str) -> str:
    """A vault with access policies, and everything for the caller."""
    name = unique("kv-")
    made = az("keyvault", "create", "-n", name, "-g", group, "--enable-rbac-authorization", "false")
    assert made["properties"]["provisioningState"] == "Succeeded"
    return name


def test_accounts(az: Az) -> None:
    assert az("account", "show")["tenantId"] == az.tenant
    assert [a["state"] for a in az("account", "list")] == ["Enabled"]
    assert az("account", "get-access-token", "--resource", "https://vault.azure.net")["accessToken"]
    assert "East US" in [place["displayName"] for place in az("account", "list-locations")]
    assert az("provider", "show", "-n", "Microsoft.KeyVault")["registrationState"] == "Registered"
    az("provider", "register", "-n", "Microsoft.KeyVault")


def test_groups(az: Az) -> None:
    name = unique("Rg_(x).")
    name += "y"
    made = az("group", "create", "-n", name, "-l", "East US", "--tags", "a=b", "c=")
    assert (made["location"], made["tags"], made["properties"]["provisioningState"]) == (
        "eastus",
        {"a": "b", "c": ""},
        "Succeeded",
    )
    assert az("group", "show", "-n", name.upper())["name"] == name
    assert az("group", "exists", "-n", name) is True
    assert name in [g["name"] for g in az("group", "list")]
    assert az("group", "update", "-n", name, "--set", "tags.d=e")["tags"]["d"] == "e"
    az.refused(1, "InvalidResourceGroupLocation", "group", "create", "-n", name, "-l", "westus")
    az("group", "delete", "-n", name, "-y")
    assert az("group", "exists", "-n", name) is False
    az.refused(3, "ResourceGroupNotFound", "group", "show", "-n", name)
    az.refused(1, "InvalidResourceGroup", "group", "create", "-n", "a%b", "-l", "eastus")


def test_the_quickstart_from_beginning_to_end(az: Az) -> None:
    """The commands of the quickstart; `az group delete` asks on a terminal."""
    group, vault = unique("quick-"), unique("quick-")
    az("group", "create", "--name", group, "--location", "eastus")
    az("keyvault", "create", "--name", vault, "--resource-group", group, "--enable-rbac-authorization", "false")
    policy = ["--secret-permissions", "delete", "get", "list", "set", "--key-permissions", "create", "get", "delete"]
    az("keyvault", "set-policy", "--name", vault, "--spn", az.application, *policy)
    az("keyvault", "key", "create", "--vault-name", vault, "--name", "k")
    assert az("keyvault", "key", "show", "--vault-name", vault, "--name", "k")["key"]["kty"] == "RSA"
    az("keyvault", "key", "delete", "--vault-name", vault, "--name", "k")
    az.refused(3, "KeyNotFound", "keyvault", "key", "show", "--vault-name", vault, "--name", "k")
    # A terminal that says yes.
    leader, follower = pty.openpty()
    command = [harness.binary(), "exec", "--data-dir", str(az.dev.directory), "--", str(AZ)]
    asked = subprocess.Popen(
        [*command, "group", "delete", "--resource-group", group],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=harness.clean_environment(),
    )
    os.close(follower)
    os.write(leader, b"y\n")
    assert asked.wait(120) == 0
    os.close(leader)
    assert az("group", "exists", "-n", group) is False
    assert vault in [v["name"] for v in az("keyvault", "list-deleted", "--resource-type", "vault")]
    az.refused(1, "VaultNotFound", "keyvault", "secret", "list", "--vault-name", vault)
    az("group", "create", "--name", group, "--location", "eastus")
    az("keyvault", "recover", "-n", vault)
    assert len(az("keyvault", "show", "-n", vault)["properties"]["accessPolicies"]) == 1


def test_vaults(az: Az, group: str, vault: str) -> None:
    shown = az("keyvault", "show", "-n", vault)
    assert shown["properties"]["vaultUri"] == f"https://{vault}.vault.azure.net/"
    assert shown["properties"]["accessPolicies"][0]["permissions"]["keys"] == ["all"]
    assert vault in [v["name"] for v in az("keyvault", "list")]
    assert vault in [v["name"] for v in az("keyvault", "list", "-g", group)]
    assert vault in [v["name"] for v in az("resource", "list", "--resource-type", "Microsoft.KeyVault/vaults")]
    updated = az("keyvault", "update", "-n", vault, "--enabled-for-deployment", "true", "--retention-days", "90")
    assert updated["properties"]["enabledForDeployment"] is True
    az.refused(1, "softDeleteRetentionInDays", "keyvault", "update", "-n", vault, "--retention-days", "10")
    az.refused(1, "already exists", "keyvault", "create", "-n", vault, "-g", group)
    az.refused(1, "VaultNameNotValid", "keyvault", "create", "-n", "a_b", "-g", group)
    az.refused(3, "ResourceGroupNotFound", "keyvault", "create", "-n", unique("kv-"), "-g", "none", "-l", "eastus")
    az("keyvault", "wait", "-n", vault, "--created")

    az("keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "kept")
    az("keyvault", "delete", "-n", vault)
    az.refused(3, "VaultNotFound", "keyvault", "secret", "show", "--vault-name", vault, "-n", "s")
    az.refused(1, "ConflictError", "keyvault", "create", "-n", vault, "-g", group)
    shown = az("keyvault", "show-deleted", "-n", vault)
    assert shown["properties"]["vaultId"].endswith(f"/{vault}")
    az("keyvault", "recover", "-n", vault)
    assert az("keyvault", "secret", "show", "--vault-name", vault, "-n", "s")["value"] == "kept"
    az("keyvault", "delete", "-n", vault)
    az("keyvault", "purge", "-n", vault)
    assert vault not in [v["name"] for v in az("keyvault", "list-deleted", "--resource-type", "vault")]
    az("keyvault", "create", "-n", vault, "-g", group, "--enable-rbac-authorization", "false")
    az.refused(3, "SecretNotFound", "keyvault", "secret", "show", "--vault-name", vault, "-n", "s")


def test_purge_protection(az: Az, group: str) -> None:
    name = unique("kv-")
    az("keyvault", "create", "-n", name, "-g", group, "--enable-purge-protection", "true", "--retention-days", "7")
    az("keyvault", "delete", "-n", name)
    az.refused(1, "DeletedVaultPurge", "keyvault", "purge", "-n", name)
    assert az("keyvault", "show-deleted", "-n", name)["properties"]["purgeProtectionEnabled"] is True


def test_policies(az: Az, vault: str) -> None:
    other = "11111111-2222-3333-4444-555555555555"
    made = az("keyvault", "set-policy", "-n", vault, "--object-id", other, "--key-permissions", "get", "purge", "all")
    entry = next(e for e in made["properties"]["accessPolicies"] if e["objectId"] == other)
    assert entry["permissions"]["keys"] == ["all", "get", "purge"]
    made = az("keyvault", "delete-policy", "-n", vault, "--object-id", other)
    assert other not in [e["objectId"] for e in made["properties"]["accessPolicies"]]
    az("keyvault", "set-policy", "-n", vault, "--spn", az.application, "--secret-permissions", "list")
    az.refused(
        1, "secrets set permission", "keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "x"
    )
    az.refused(
        1, "Unable to get object id", "keyvault", "set-policy", "-n", vault, "--spn", other, "--key-permissions", "get"
    )
    az.refused(
        1,
        "Unable to get object id",
        "keyvault",
        "set-policy",
        "-n",
        vault,
        "--upn",
        "a@b.c",
        "--key-permissions",
        "get",
    )


def test_network_rules(az: Az, vault: str) -> None:
    secret = ("keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "x")
    az("keyvault", "network-rule", "add", "-n", vault, "--ip-address", "10.0.0.0/8")
    az("keyvault", "update", "-n", vault, "--default-action", "Deny")
    az.refused(1, "Client address is not authorized", *secret)
    made = az("keyvault", "network-rule", "add", "-n", vault, "--ip-address", "127.0.0.0/30")
    assert [r["value"] for r in made["properties"]["networkAcls"]["ipRules"]] == ["10.0.0.0/8", "127.0.0.0/30"]
    az(*secret)
    az("keyvault", "network-rule", "remove", "-n", vault, "--ip-address", "127.0.0.0/30")
    assert len(az("keyvault", "network-rule", "list", "-n", vault)["ipRules"]) == 1
    az.refused(1, "Client address is not authorized", *secret)
    az("keyvault", "update", "-n", vault, "--default-action", "Allow", "--public-network-access", "Disabled")
    az.refused(1, "Public network access is disabled", *secret)
    az("keyvault", "update", "-n", vault, "--public-network-access", "Enabled")
    az(*secret)


def test_roles(az: Az, group: str, tmp_path: Path) -> None:
    vault = unique("kv-")
    # Current az asks for roles unless told otherwise.
    made = az("keyvault", "create", "-n", vault, "-g", group)
    assert made["properties"]["enableRbacAuthorization"] is True
    az.refused(
        1,
        "--enable-rbac-authorization",
        "keyvault",
        "set-policy",
        "-n",
        vault,
        "--spn",
        az.application,
        "--key-permissions",
        "get",
    )
    scope = made["id"]
    secret = ("keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "x")
    az.refused(1, "Microsoft.KeyVault/vaults/secrets/setSecret/action", *secret)
    role = ("--role", "Key Vault Secrets Officer", "--assignee", az.application, "--scope", scope)
    az("role", "assignment", "create", *role)
    az(*secret)
    listed = az("role", "assignment", "list", "--scope", scope)
    assert [(a["roleDefinitionName"], a["principalName"]) for a in listed] == [
        ("Key Vault Secrets Officer", az.application)
    ]
    az("role", "assignment", "delete", *role)
    az.refused(1, "setSecret", *secret)
    one = ("--role", "Key Vault Secrets User", "--assignee", az.application, "--scope", f"{scope}/secrets/one")
    az("role", "assignment", "create", *one)
    az.refused(1, "getSecret", "keyvault", "secret", "show", "--vault-name", vault, "-n", "s")
    az.refused(3, "SecretNotFound", "keyvault", "secret", "show", "--vault-name", vault, "-n", "one")

    definition = {
        "Name": unique("Custom "),
        "IsCustom": True,
        "Description": "d",
        "Actions": [],
        "NotActions": [],
        "DataActions": ["Microsoft.KeyVault/vaults/secrets/*"],
        "NotDataActions": ["Microsoft.KeyVault/vaults/secrets/delete"],
        "AssignableScopes": [f"/subscriptions/{az.subscription}"],
    }
    path = tmp_path / "role.json"
    path.write_text(json.dumps(definition))
    az("role", "definition", "create", "--role-definition", f"@{path}")
    custom = ("--role", definition["Name"], "--assignee", az.application, "--scope", scope)
    az("role", "assignment", "create", *custom)
    az(*secret)
    az.refused(1, "secrets/delete", "keyvault", "secret", "delete", "--vault-name", vault, "-n", "s")
    az.refused(1, "RoleDefinitionHasAssignments", "role", "definition", "delete", "-n", definition["Name"])
    az("role", "assignment", "delete", *custom)
    az("role", "definition", "delete", "-n", definition["Name"])
    assert (
        az("role", "definition", "list", "-n", "Key Vault Reader")[0]["name"] == "21090545-7ca7-4776-b22c-e363652d74d2"
    )


def test_the_directory(az: Az, vault: str, tmp_path: Path) -> None:
    assert az("ad", "sp", "show", "--id", az.application)["appId"] == az.application
    az.refused(1, "/me request is only valid with delegated", "ad", "signed-in-user", "show")
    name = unique("robot-")
    scope = f"/subscriptions/{az.subscription}"
    made = az("ad", "sp", "create-for-rbac", "--name", name, "--role", "Reader", "--scopes", scope)
    assert [sp["appId"] for sp in az("ad", "sp", "list", "--display-name", name)] == [made["appId"]]
    assert made["appId"] in [app["appId"] for app in az("ad", "app", "list", "--all")]

    own = {"AZURE_CONFIG_DIR": str(tmp_path / "az")}
    az.login(made["appId"], made["password"], own)
    assert vault in [v["name"] for v in az("keyvault", "list", env=own)]
    az.refused(1, "AuthorizationFailed", "group", "create", "-n", "x", "-l", "eastus", env=own)
    az.refused(
        1,
        "AuthorizationFailed",
        "keyvault",
        "set-policy",
        "-n",
        vault,
        "--spn",
        made["appId"],
        "--secret-permissions",
        "get",
        env=own,
    )
    az.refused(1, "secrets list permission", "keyvault", "secret", "list", "--vault-name", vault, env=own)
    az("keyvault", "set-policy", "-n", vault, "--spn", made["appId"], "--secret-permissions", "list")
    assert az("keyvault", "secret", "list", "--vault-name", vault, env=own) == []

    reset = az("ad", "app", "credential", "reset", "--id", made["appId"])
    az.refused(
        1,
        "AADSTS7000215",
        "login",
        "--service-principal",
        "-u",
        made["appId"],
        "-p",
        made["password"],
        "--tenant",
        az.tenant,
        env={"AZURE_CONFIG_DIR": str(tmp_path / "b")},
    )
    az.login(reset["appId"], reset["password"], {"AZURE_CONFIG_DIR": str(tmp_path / "c")})
    az("ad", "sp", "delete", "--id", made["appId"])
    az.refused(
        1,
        "AADSTS700016",
        "login",
        "--service-principal",
        "-u",
        made["appId"],
        "-p",
        reset["password"],
        "--tenant",
        az.tenant,
        env={"AZURE_CONFIG_DIR": str(tmp_path / "d")},
    )


def test_a_certificate_signs_in(az: Az, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "AZURE_CONFIG_DIR": str(tmp_path / "az")}
    az.login(az.application, az.secret, home)
    made = az("ad", "sp", "create-for-rbac", "--name", unique("robot-"), "--create-cert", env=home)
    path = made["fileWithCertAndPrivateKey"]
    scope = f"/subscriptions/{az.subscription}"
    az("role", "assignment", "create", "--role", "Reader", "--assignee", made["appId"], "--scope", scope)
    sign_in = ("login", "--service-principal", "-u", made["appId"], "--certificate", path, "--tenant", az.tenant)
    own = {"AZURE_CONFIG_DIR": str(tmp_path / "own")}
    assert [a["id"] for a in az(*sign_in, env=own)] == [az.subscription]
    assert "demo" in [v["name"] for v in az("keyvault", "list", env=own)]
    # A certificate of somebody else's.
    other = az("ad", "sp", "create-for-rbac", "--name", unique("robot-"), "--create-cert", env=home)
    wrong = [other["fileWithCertAndPrivateKey"] if word == path else word for word in sign_in]
    az.refused(1, "AADSTS700027", *wrong, env={"AZURE_CONFIG_DIR": str(tmp_path / "wrong")})


def test_users_sign_in(az: Az, vault: str, tmp_path: Path, dev_place: Place) -> None:
    upn, password = f"{unique('alice-')}@example.com", "correct horse battery"
    made = az("ad", "user", "create", "--display-name", "Alice", "--user-principal-name", upn, "--password", password)
    assert az("ad", "user", "show", "--id", upn)["id"] == made["id"]
    assert [u["id"] for u in az("ad", "user", "list", "--upn", upn)] == [made["id"]]
    assert upn in [u["userPrincipalName"] for u in az("ad", "user", "list", "--display-name", "Alice")]
    az.refused(
        1,
        "already exists",
        *("ad", "user", "create", "--display-name", "A", "--user-principal-name", upn, "--password", password),
    )
    az("keyvault", "set-policy", "-n", vault, "--upn", upn, "--secret-permissions", "set", "get")
    scope = f"/subscriptions/{az.subscription}"
    az("role", "assignment", "create", "--role", "Reader", "--assignee", upn, "--scope", scope)

    own = {"AZURE_CONFIG_DIR": str(tmp_path / "own")}
    accounts = az("login", "-u", upn, "-p", password, env=own)
    assert [(a["id"], a["user"]["name"], a["tenantId"]) for a in accounts] == [(az.subscription, upn, az.tenant)]
    assert az("ad", "signed-in-user", "show", env=own)["id"] == made["id"]
    az("keyvault", "secret", "set", "--vault-name", vault, "-n", "s", "--value", "hers", env=own)
    az.refused(1, "secrets list permission", "keyvault", "secret", "list", "--vault-name", vault, env=own)
    az("logout", env=own)
    az.refused(1, "AADSTS50126", "login", "-u", upn, "-p", "wrong password", env=own)

    command = [harness.binary(), "exec", "--data-dir", str(az.dev.directory), "--", str(AZ), "login"]
    device = {"AZURE_CONFIG_DIR": str(tmp_path / "device")}
    waiting = subprocess.Popen(
        [*command, "--use-device-code", "--tenant", az.tenant],
        env={**harness.clean_environment(), **device},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr and waiting.stdout
    said = waiting.stderr.readline()
    code = re.search(r"enter the code (\S+) to", said)
    assert code and f"https://login.localhost:{az.dev.port}/devicelogin" in said, said
    form = urlencode({"code": code[1], "username": upn, "password": password}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert dev_place.http.request("POST", dev_place.login_host, "/devicelogin", form, headers).status == 200
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert [a["user"]["name"] for a in json.loads(out)] == [upn]
    assert az("keyvault", "secret", "show", "--vault-name", vault, "-n", "s", env=device)["value"] == "hers"

    group = az("ad", "group", "create", "--display-name", unique("g-"), "--mail-nickname", "g")["id"]
    az("ad", "group", "member", "add", "--group", group, "--member-id", made["id"])
    assert [m["id"] for m in az("ad", "group", "member", "list", "--group", group)] == [made["id"]]
    assert az("ad", "group", "member", "check", "--group", group, "--member-id", made["id"])["value"] is True
    assert az("ad", "user", "get-member-groups", "--id", upn)[0]["id"] == group
    az("ad", "group", "member", "remove", "--group", group, "--member-id", made["id"])
    az("ad", "group", "delete", "--group", group)
    az("ad", "user", "update", "--id", upn, "--display-name", "Alice B.")
    az("ad", "user", "delete", "--id", upn)
    az.refused(3, "does not exist", "ad", "user", "show", "--id", upn)
    az.refused(1, "Unauthorized", "keyvault", "secret", "show", "--vault-name", vault, "-n", "s", env=device)


def test_keys(az: Az, vault: str, tmp_path: Path) -> None:
    """A key's life, and everything that is done with keys."""
    here = ("--vault-name", vault)

    def key(*args: str) -> Any:
        return az("keyvault", "key", *args)

    made = key("create", *here, "-n", "rsa", "--kty", "RSA", "--size", "2048", "--tags", "a=b")["key"]["kid"]
    az("keyvault", "set-policy", "-n", vault, "--spn", az.application, "--key-permissions", "all", "purge")
    assert made.rsplit("/", 1)[0] in [found["kid"] for found in key("list", *here)]
    digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    signed = key("sign", *here, "-n", "rsa", "-a", "RS256", "--digest", digest)["signature"]
    assert key("verify", *here, "-n", "rsa", "-a", "RS256", "--digest", digest, "--signature", signed)["isValid"]
    text = ("--data-type", "base64", "-a", "RSA-OAEP-256")
    sealed = key("encrypt", *here, "-n", "rsa", *text, "--value", "aGVsbG8=")["result"]
    assert key("decrypt", *here, "-n", "rsa", *text, "--value", sealed)["result"] == "aGVsbG8="
    key("download", *here, "-n", "rsa", "-f", str(tmp_path / "rsa.pem"))
    public = serialization.load_pem_public_key((tmp_path / "rsa.pem").read_bytes())
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(base64.b64decode(signed), hashlib.sha256(b"x").digest(), PKCS1v15(), Prehashed(SHA256()))
    key("backup", *here, "-n", "rsa", "-f", str(tmp_path / "rsa.backup"))
    assert key("rotate", *here, "-n", "rsa")["key"]["kid"] != made
    assert len(key("list-versions", *here, "-n", "rsa")) == 2
    policy = {
        "lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}],
        "attributes": {"expiryTime": "P2Y"},
    }
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    key("rotation-policy", "update", *here, "-n", "rsa", "--value", str(tmp_path / "policy.json"))
    assert key("rotation-policy", "show", *here, "-n", "rsa")["expiresIn"] == "P2Y"
    changed = key("set-attributes", *here, "-n", "rsa", "--enabled", "false", "--expires", "2039-01-01T00:00:00Z")
    assert changed["attributes"]["enabled"] is False
    key("set-attributes", *here, "-n", "rsa", "--enabled", "true")
    assert key("show", *here, "-n", "rsa")["attributes"]["expires"][:10] == "2039-01-01"
    assert key("get-policy-template")["anyOf"]
    key("delete", *here, "-n", "rsa")
    assert [found["kid"] for found in key("list-deleted", *here)] == [made.rsplit("/", 1)[0]]
    assert key("show-deleted", *here, "-n", "rsa")["recoveryId"]
    key("recover", *here, "-n", "rsa")
    key("delete", *here, "-n", "rsa")
    key("purge", *here, "-n", "rsa")
    az.refused(3, "KeyNotFound", "keyvault", "key", "show", *here, "-n", "rsa")
    assert key("restore", *here, "-f", str(tmp_path / "rsa.backup"))["key"]["kid"] == made


def test_keys_are_imported(az: Az, vault: str, tmp_path: Path) -> None:
    here = ("--vault-name", vault)
    for name, made, password in (
        ("rsa", rsa.generate_private_key(65537, 2048), None),
        ("ec", ec.generate_private_key(ec.SECP384R1()), None),
        ("locked", rsa.generate_private_key(65537, 2048), b"correct horse"),
    ):
        how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        encoded = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, how)
        (tmp_path / f"{name}.pem").write_bytes(encoded)
        unlock = ("--pem-password", password.decode()) if password else ()
        az("keyvault", "key", "import", *here, "-n", name, "--pem-file", str(tmp_path / f"{name}.pem"), *unlock)
        az("keyvault", "key", "download", *here, "-n", name, "-f", str(tmp_path / f"{name}.der"), "-e", "DER")
        known = serialization.load_der_public_key((tmp_path / f"{name}.der").read_bytes())
        assert known == made.public_key(), name
    byok = ("--byok-file", str(tmp_path / "rsa.pem"))
    az.refused(1, "premium SKU", "keyvault", "key", "import", *here, "-n", "byok", *byok)


def test_secrets(az: Az, vault: str, tmp_path: Path) -> None:
    here = ("--vault-name", vault)

    def secret(*args: str) -> Any:
        return az("keyvault", "secret", *args)

    az("keyvault", "set-policy", "-n", vault, "--spn", az.application, "--secret-permissions", "all", "purge")
    secret("set", *here, "-n", "s", "--value", "one", "--description", "text", "--tags", "a=b")
    again = secret("set", *here, "-n", "s", "--value", "two", "--expires", "2039-01-01T00:00:00Z")
    assert len(secret("list-versions", *here, "-n", "s")) == 2
    assert "s" in [found["name"] for found in secret("list", *here)]
    changed = secret("set-attributes", *here, "-n", "s", "--content-type", "text/plain")
    assert (changed["contentType"], changed["id"]) == ("text/plain", again["id"])
    (tmp_path / "in").write_bytes(bytes(range(256)))
    secret("set", *here, "-n", "bytes", "--file", str(tmp_path / "in"), "--encoding", "base64")
    secret("download", *here, "-n", "bytes", "--file", str(tmp_path / "out"), "--encoding", "base64")
    assert (tmp_path / "out").read_bytes() == bytes(range(256))
    secret("backup", *here, "-n", "s", "--file", str(tmp_path / "s.backup"))
    secret("delete", *here, "-n", "s")
    assert [found["name"] for found in secret("list-deleted", *here)] == ["s"]
    assert secret("show-deleted", *here, "-n", "s")["recoveryId"]
    secret("recover", *here, "-n", "s")
    assert secret("show", *here, "-n", "s")["value"] == "two"
    secret("delete", *here, "-n", "s")
    secret("purge", *here, "-n", "s")
    assert secret("restore", *here, "--file", str(tmp_path / "s.backup"))["id"] == again["id"]


def test_a_cluster_is_a_cloud_of_its_own(az: Az, cluster: Cluster, tmp_path: Path) -> None:
    """`az cloud register`, and each command through another node."""
    port, domain = cluster.public_port, harness.OWN_DOMAIN
    hosts = {plane: f"https://{plane}.{domain}:{port}" for plane in ("management", "login", "graph")}
    endpoints = {
        "resourceManager": hosts["management"],
        "activeDirectory": hosts["login"],
        "activeDirectoryResourceId": hosts["management"] + "/",
        "activeDirectoryGraphResourceId": hosts["graph"] + "/",
        "microsoftGraphResourceId": hosts["graph"] + "/",
    }
    by_hand = json.dumps({"endpoints": endpoints, "suffixes": {"keyvaultDns": f".vault.{domain}:{port}"}})
    place, proxies = cluster.places()[0], itertools.cycle(node.connector.url for node in cluster.nodes)

    def run(*args: str, profile: str) -> Any:
        env = {
            **{"AZURE_CONFIG_DIR": str(tmp_path / profile), "REQUESTS_CA_BUNDLE": place.ca},
            **{"HTTPS_PROXY": next(proxies), "AZURE_CORE_COLLECT_TELEMETRY": "0"},
        }
        done = subprocess.run(
            [str(AZ), *args], env={**harness.clean_environment(), **env}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"az {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    for profile, how in (
        ("by-hand", ("--cloud-config", by_hand)),
        ("discovered", ("--endpoint-resource-manager", hosts["management"])),
    ):
        run("cloud", "register", "--name", "kms", *how, profile=profile)
        run("cloud", "set", "--name", "kms", profile=profile)
        run("config", "set", "core.instance_discovery=false", profile=profile)
        who = ("-u", place.client_id, "-p", place.client_secret, "--tenant", place.tenant)
        assert run("login", "--service-principal", *who, profile=profile)[0]["tenantId"] == place.tenant
        group, vault = unique("rg-"), unique("kv-")
        run("group", "create", "-n", group, "-l", "local", profile=profile)
        policies = ("--enable-rbac-authorization", "false")
        made = run("keyvault", "create", "-n", vault, "-g", group, *policies, profile=profile)
        assert made["properties"]["vaultUri"] == f"https://{vault}.vault.{domain}:{port}/"
        here = ("--vault-name", vault, "-n", "s")
        run("keyvault", "secret", "set", *here, "--value", profile, profile=profile)
        # As many as there are nodes: each of them knows it.
        for _ in cluster.nodes:
            assert run("keyvault", "secret", "show", *here, profile=profile)["value"] == profile
        run("keyvault", "delete-policy", "-n", vault, "--spn", place.client_id, profile=profile)
        run("group", "delete", "-n", group, "--yes", profile=profile)


def commands() -> list[str]:
    """Every `az keyvault` command of the installed azure-cli."""
    listing = (
        "from azure.cli.core import get_default_cli as cli\n"
        "print(*cli().commands_loader_cls(cli()).load_command_table(['keyvault']), sep='\\n')\n"
    )
    done = subprocess.run(
        [str(AZ.parent / "python"), "-c", listing], capture_output=True, text=True, check=True, timeout=60
    )
    return sorted(line for line in done.stdout.splitlines() if line.startswith("keyvault "))


def test_the_table_of_commands_has_them_all(az: Az) -> None:
    rows = re.findall(r"^\| `([^`]*)` \| (\w+)", (ROOT / "docs" / "az.md").read_text(), re.MULTILINE)
    said: dict[str, str] = {}
    for names, verdict in rows:
        prefix, _, last = names.rpartition(" ")
        for one in last.split(","):
            said[f"keyvault {prefix} {one}".replace("  ", " ")] = verdict
    assert sorted(said) == commands()
    assert set(said.values()) == {"works", "refused", "none"}


def test_what_is_not_there_says_so(az: Az) -> None:
    az("keyvault", "network-rule", "wait", "-n", "demo", "--created")
    assert az("keyvault", "certificate", "get-default-policy")["issuerParameters"]["name"] == "Self"
    assert az("keyvault", "check-name", "-n", "abc")["nameAvailable"] is False
    assert az("keyvault", "list", "--resource-type", "hsm") == []
    assert az("keyvault", "private-link-resource", "list", "--vault-name", "demo") == []
    az.refused(3, "was not found", "keyvault", "show", "-g", "claviger", "-n", "none")
    az.refused(1, "claviger has vaults, and no managed HSM", "keyvault", "setting", "list", "--hsm-name", "demo")
    az.refused(1, "not found within subscription", "keyvault", "region", "list", "--hsm-name", "demo")
    az.refused(1, "not there yet", "keyvault", "certificate", "list", "--vault-name", "demo")
