"""Users: made by `claviger identity` and by the directory, signed in by password and for a device, and gone at once."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import DeviceCodeCredential, UsernamePasswordCredential
from azure.keyvault.secrets import SecretClient

import harness
from harness import Cluster, Finished, Place, Reply, unb64url
from test_identity import parts

AZ = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
PASSWORD = "correct horse battery"


def form(place: Place, path: str, **fields: str) -> Reply:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return place.http.request("POST", place.login_host, path, urlencode(fields).encode(), headers)


def token(place: Place, tenant: str | None = None, **fields: str) -> Reply:
    scope = f"{place.resource}/.default offline_access openid profile"
    return form(
        place, f"/{tenant or place.tenant}/oauth2/v2.0/token", **{"client_id": AZ, "scope": scope, **fields}
    )


def sign_in(place: Place, name: str, password: str = PASSWORD, **fields: str) -> Reply:
    return token(place, grant_type="password", username=name, password=password, **fields)


def refused(reply: Reply, code: int, error: str) -> None:
    body = reply.json
    assert (reply.status, body["error_codes"], body["error"]) == (400, [code], error), reply


def graph(place: Place, method: str, path: str, body: Any = None) -> Reply:
    host = place.login_host.replace("login.microsoftonline.com", "graph.microsoft.com").replace("login.", "graph.")
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {place.token(f'https://{host}')}", "Content-Type": "application/json"}
    return place.http.request(method, host, "/v1.0" + path, data, headers)


class Directory:
    """`claviger identity` on one node."""

    def __init__(self, cluster: Cluster):
        self.config = str(cluster.nodes[0].config)

    def run(self, command: str, *args: str, stdin: str = "") -> Finished:
        return harness.run("identity", command, "--config", self.config, *args, stdin=stdin)

    def __call__(self, command: str, *args: str, stdin: str = "") -> Any:
        done = self.run(command, *args, stdin=stdin)
        assert done.code == 0, f"{command} {args}: {done.err}"
        return done.json()


@pytest.fixture(scope="module")
def directory(cluster: Cluster) -> Directory:
    return Directory(cluster)


def make_user(place: Place, name: str) -> tuple[str, str]:
    """A user of the directory: name and object id."""
    upn = f"{name}@example.com"
    profile = {"password": PASSWORD, "forceChangePasswordNextSignIn": False}
    made = graph(place, "POST", "/users", {"userPrincipalName": upn, "displayName": name, "passwordProfile": profile})
    assert made.status == 201, made
    return upn, made.json["id"]


def let_in(place: Place, oid: str) -> None:
    """Gives a principal everything in the place's vault, through the resource manager."""
    host = place.login_host.replace("login.microsoftonline.com", "management.azure.com").replace("login.", "management.")
    headers = {"Authorization": f"Bearer {place.token(f'https://{host}')}", "Content-Type": "application/json"}
    listed = place.http.request("GET", host, "/subscriptions?api-version=2022-12-01", None, headers).json["value"]
    vault = f"{listed[0]['id']}/resourceGroups/claviger/providers/Microsoft.KeyVault/vaults/{place.vault}"
    entry = {"tenantId": place.tenant, "objectId": oid, "permissions": {"secrets": ["all"], "keys": ["all"]}}
    body = json.dumps({"properties": {"accessPolicies": [entry]}}).encode()
    path = f"{vault}/accessPolicies/add?api-version=2023-07-01"
    assert place.http.request("PUT", host, path, body, headers).status in (200, 201)


@pytest.mark.everywhere
def test_a_password_signs_in(place: Place, name: str) -> None:
    upn, oid = make_user(place, name[:40])
    answer = sign_in(place, upn.upper()).json
    assert (answer["token_type"], answer["expires_in"] > 600) == ("Bearer", True)
    assert f"{place.resource}/.default" in answer["scope"].split()
    _, claims = parts(answer["access_token"])
    assert {k: claims[k] for k in ("oid", "upn", "idtyp", "appid", "appidacr", "scp", "tid")} == {
        "oid": oid,
        "upn": upn,
        "idtyp": "user",
        "appid": AZ,
        "appidacr": "0",
        "scp": "user_impersonation",
        "tid": place.tenant,
    }
    _, claims = parts(answer["id_token"])
    assert (claims["preferred_username"], claims["tid"], claims["aud"]) == (upn, place.tenant, AZ)
    padded = answer["client_info"] + "=" * (-len(answer["client_info"]) % 4)
    assert json.loads(base64.urlsafe_b64decode(padded)) == {"uid": oid, "utid": place.tenant}
    # An id token opens nothing.
    assert place.call("GET", "/secrets", token=answer["id_token"]).status == 401
    assert place.call("GET", "/secrets", token=answer["access_token"]).status == 403
    let_in(place, oid)
    assert place.call("PUT", f"/secrets/{name}", {"value": "v"}, token=answer["access_token"]).status == 200
    # Without a tenant the name says which.
    assert token(place, "organizations", grant_type="password", username=upn, password=PASSWORD).status == 200


def test_wrong_names_and_passwords_look_alike(dev_place: Place, name: str) -> None:
    upn, oid = make_user(dev_place, name)
    for who, password in ((upn, "wrong password"), ("nobody@example.com", PASSWORD), (f"x{upn}", PASSWORD)):
        refused(sign_in(dev_place, who, password), 50126, "invalid_grant")
    refused(token(dev_place, grant_type="password", username=upn), 900144, "invalid_request")
    refused(token(dev_place, grant_type="authorization_code", code="x"), 70003, "unsupported_grant_type")
    assert graph(dev_place, "PATCH", f"/users/{oid}", {"accountEnabled": False}).status == 204
    refused(sign_in(dev_place, upn), 50057, "invalid_grant")
    refused(sign_in(dev_place, upn, "wrong password"), 50126, "invalid_grant")


def test_too_many_wrong_passwords_wait(dev_place: Place, name: str) -> None:
    upn, _ = make_user(dev_place, name)
    for _ in range(20):
        refused(sign_in(dev_place, upn, "wrong password"), 50126, "invalid_grant")
    refused(sign_in(dev_place, upn), 50053, "invalid_grant")


def test_an_application_with_a_secret_has_to_show_it(dev_place: Place, name: str) -> None:
    upn, _ = make_user(dev_place, name)
    own = {"client_id": dev_place.client_id}
    assert sign_in(dev_place, upn, **own).json["error_codes"] == [7000218]
    assert sign_in(dev_place, upn, **own, client_secret="wrong").json["error_codes"] == [7000215]
    answer = sign_in(dev_place, upn, **own, client_secret=dev_place.client_secret).json
    assert parts(answer["access_token"])[1]["appidacr"] == "1"
    # Its refresh token is no other program's.
    refused(token(dev_place, grant_type="refresh_token", refresh_token=answer["refresh_token"]), 70000, "invalid_grant")


@pytest.mark.everywhere
def test_refresh_tokens_go_on_until_the_password_changes(place: Place, name: str) -> None:
    upn, oid = make_user(place, name[:40])
    first = sign_in(place, upn).json["refresh_token"]
    answer = token(place, grant_type="refresh_token", refresh_token=first)
    assert answer.status == 200, answer
    second = answer.json["refresh_token"]
    assert second != first
    # For another resource, and in the common tenant.
    login = place.login_host.replace("login.microsoftonline.com", "management.azure.com").replace("login.", "management.")
    answer = token(
        place, "organizations", grant_type="refresh_token", refresh_token=second, scope=f"https://{login}/.default"
    )
    assert parts(answer.json["access_token"])[1]["aud"] == f"https://{login}"
    refused(token(place, grant_type="refresh_token", refresh_token=first[:-4] + "AAAA"), 9002313, "invalid_grant")
    changed = graph(place, "PATCH", f"/users/{oid}", {"passwordProfile": {"password": PASSWORD + "2"}})
    assert changed.status == 204, changed
    for old in (first, second):
        refused(token(place, grant_type="refresh_token", refresh_token=old), 50173, "invalid_grant")
    refused(sign_in(place, upn), 50126, "invalid_grant")
    third = sign_in(place, upn, PASSWORD + "2").json["refresh_token"]
    assert graph(place, "DELETE", f"/users/{upn}").status == 204
    refused(token(place, grant_type="refresh_token", refresh_token=third), 50173, "invalid_grant")


def test_tokens_die_with_their_principals_on_every_node(cluster: Cluster, name: str) -> None:
    """Deleted on one node, refused by the next request to any other."""
    here, *others = cluster.places()
    upn, oid = make_user(here, name)
    let_in(here, oid)
    user = sign_in(here, upn).json["access_token"]
    made = harness.must(
        *("identity", "create-application", "--config", str(cluster.nodes[0].config), "--display-name", name)
    ).json()
    let_in(here, made["object_id"])
    application = cluster.place(cluster.nodes[0], made).token()
    for held in (user, application):
        for place in cluster.places():
            assert place.call("GET", "/secrets", token=held).status == 200
    assert graph(here, "DELETE", f"/users/{oid}").status == 204
    found = graph(here, "GET", f"/applications(appId='{made['client_id']}')").json["id"]
    assert graph(here, "DELETE", f"/applications/{found}").status == 204
    for held in (user, application):
        for place in [*others, here]:
            reply = place.call("GET", "/secrets", token=held)
            assert (reply.status, reply.error["message"][:8]) == (401, "AKV10004")
            assert 'resource="' in (reply.header("WWW-Authenticate") or "")


# --- for a device -----------------------------------------------------------------------------------------------------


def page(place: Place, **fields: str) -> Reply:
    return form(place, "/devicelogin", **fields)


def begin(place: Place) -> dict[str, Any]:
    scope = f"{place.resource}/.default offline_access openid profile"
    answer = form(place, f"/{place.tenant}/oauth2/v2.0/devicecode", client_id=AZ, scope=scope)
    assert answer.status == 200, answer
    return answer.json


def test_a_device_signs_in_on_another_node(cluster: Cluster, name: str) -> None:
    first, second, third = cluster.places()
    upn, oid = make_user(first, name)
    device = begin(first)
    assert re.fullmatch(r"[A-Z]{4}-[A-Z]{4}-[A-Z]{4}", device["user_code"])
    assert device["user_code"] in device["message"] and device["verification_uri"] in device["message"]
    assert device["verification_uri"] == f"https://{first.login_host}/devicelogin"
    poll = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device["device_code"]}
    refused(token(third, **poll), 70016, "authorization_pending")
    shown = second.http.request("GET", second.login_host, "/devicelogin")
    assert shown.status == 200 and b"<form" in shown.body
    assert "default-src 'none'" in shown.header("Content-Security-Policy")
    # As people write it.
    code = device["user_code"].lower().replace("-", " ")
    assert page(second, code=code, username=upn, password="wrong password").status == 403
    refused(token(third, **poll), 70016, "authorization_pending")
    done = page(second, code=code, username=upn, password=PASSWORD)
    assert (done.status, upn.encode() in done.body) == (200, True), done
    assert page(second, code=code, username=upn, password=PASSWORD).status == 409
    answer = token(third, **poll)
    assert answer.status == 200, answer
    assert parts(answer.json["access_token"])[1]["oid"] == oid
    assert token(second, grant_type="refresh_token", refresh_token=answer.json["refresh_token"]).status == 200
    assert token(first, **poll).json["error"] == "authorization_pending", "a code is good for one token"


def test_codes_that_are_not_ours(dev_place: Place, name: str) -> None:
    upn, _ = make_user(dev_place, name)
    code = begin(dev_place)["user_code"]
    other = code[:-1] + ("B" if code[-1] != "B" else "C")
    for wrong in (other, "", "X", "ÄÖ", code + "B"):
        reply = page(dev_place, code=wrong, username=upn, password=PASSWORD)
        assert (reply.status, b"wrong or has expired" in reply.body) == (400, True), wrong
    reply = page(dev_place, code='"><script>', username=upn, password=PASSWORD)
    assert b"<script>" not in reply.body
    for wrong in ("x", begin(dev_place)["device_code"][:-3] + "AAA"):
        refused(token(dev_place, grant_type="device_code", device_code=wrong), 70000, "bad_verification_code")


# --- through azure-identity -------------------------------------------------------------------------------------------


def test_azure_identity_signs_users_in(dev_place: Place, name: str) -> None:
    upn, oid = make_user(dev_place, name)
    let_in(dev_place, oid)
    common = {"tenant_id": dev_place.tenant, "authority": dev_place.authority, **dev_place.sdk()}
    with (
        UsernamePasswordCredential(client_id=AZ, username=upn, password=PASSWORD, **common) as credential,
        SecretClient(dev_place.url(), credential, **dev_place.sdk()) as client,
    ):
        client.set_secret(name, "v")
        assert client.get_secret(name).value == "v"

    def approve(uri: str, code: str, expires: Any) -> None:
        assert page(dev_place, code=code, username=upn, password=PASSWORD).status == 200

    with (
        DeviceCodeCredential(client_id=AZ, prompt_callback=approve, **common) as credential,
        SecretClient(dev_place.url(), credential, **dev_place.sdk()) as client,
    ):
        assert client.get_secret(name).value == "v"
        assert graph(dev_place, "DELETE", f"/users/{oid}").status == 204
        with pytest.raises((HttpResponseError, ClientAuthenticationError)):
            client.get_secret(name)


# --- by operators -----------------------------------------------------------------------------------------------------


def test_operators_make_users_and_groups(cluster: Cluster, directory: Directory, name: str) -> None:
    place = cluster.places()[1]
    upn = f"{name}@example.com"
    made = directory("create-user", "--user", upn, "--display-name", name)
    assert (made["userPrincipalName"], len(made["password"])) == (upn, 40)
    assert sign_in(place, upn, made["password"]).status == 200
    assert directory("set-password", "--user", upn, "--password-stdin", stdin=PASSWORD + "\n") == {}
    held = sign_in(place, upn).json["access_token"]
    again = directory.run("create-user", "--user", upn.upper(), "--display-name", "x")
    assert (again.code, "already exists" in again.err) == (1, True), again
    short = directory.run("set-password", "--user", upn, "--password-stdin", stdin="short\n")
    assert (short.code, "8 to 256 characters" in short.err) == (1, True), short
    assert upn in [user["userPrincipalName"] for user in directory("list-users")]

    group = directory("create-group", "--display-name", name)
    let_in(place, group["id"])
    assert place.call("GET", "/secrets", token=held).status == 403
    directory("add-member", "--group", name, "--member", upn)
    assert [m["name"] for m in directory("show-group", "--group", group["id"])["members"]] == [upn]
    assert place.call("GET", "/secrets", token=held).status == 200
    assert parts(sign_in(place, upn).json["access_token"])[1]["groups"] == [group["id"]]
    directory("remove-member", "--group", name, "--member", made["id"])
    assert place.call("GET", "/secrets", token=held).status == 403
    directory("add-member", "--group", name, "--member", upn)
    directory("delete-group", "--group", name)
    assert place.call("GET", "/secrets", token=held).status == 403
    assert name not in [found["displayName"] for found in directory("list-groups")]

    directory("disable-user", "--user", upn)
    assert place.call("GET", "/secrets", token=held).status == 401
    assert directory("show-user", "--user", upn)["accountEnabled"] is False
    directory("enable-user", "--user", upn)
    assert place.call("GET", "/secrets", token=held).status == 403
    directory("delete-user", "--user", upn)
    assert place.call("GET", "/secrets", token=held).status == 401
    assert directory.run("show-user", "--user", upn).code == 1


def test_operators_make_applications(cluster: Cluster, directory: Directory, name: str) -> None:
    made = directory("create-application", "--display-name", name)
    node = cluster.nodes[2]
    secret = directory("add-secret", "--application", name, "--display-name", "second", "--days", "1")
    assert len(secret["secretText"]) == 40
    assert cluster.place(node, {**made, "client_secret": secret["secretText"]}).token()
    shown = directory("show-application", "--application", made["object_id"])
    assert [found["displayName"] for found in shown["passwordCredentials"]] == ["first", "second"]
    assert "secretText" not in shown["passwordCredentials"][0] or not shown["passwordCredentials"][0]["secretText"]
    directory("remove-secret", "--application", name, "--key-id", secret["keyId"])
    assert directory.run("remove-secret", "--application", name, "--key-id", secret["keyId"]).code == 1
    credential = ("--name", "ci", "--issuer", "https://issuer.example.com", "--subject", "repo:a/b:ref:refs/heads/main")
    added = directory("add-federated-credential", "--application", made["client_id"], *credential)
    assert added["audiences"] == ["api://AzureADTokenExchange"]
    assert directory.run("add-federated-credential", "--application", name, *credential).code == 1
    directory("remove-federated-credential", "--application", name, "--credential", "ci")
    shown = directory("show-application", "--application", name)
    assert shown["federatedIdentityCredentials"] == []
    assert name in [found["displayName"] for found in directory("list-applications")]
    directory("delete-application", "--application", name)
    assert directory.run("show-application", "--application", name).code == 1


def test_the_client_info_of_another_user_is_its_own(dev_place: Place, name: str) -> None:
    one, two = (make_user(dev_place, f"{name}{n}") for n in (1, 2))
    infos = [json.loads(unb64url(sign_in(dev_place, upn).json["client_info"])) for upn, _ in (one, two)]
    assert [info["uid"] for info in infos] == [one[1], two[1]]
