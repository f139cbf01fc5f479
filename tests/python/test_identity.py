"""The built-in token service as clients and resource servers see it (contract, identity.md)."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any
from urllib.parse import urlencode

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness import Place, Reply, unb64url

everywhere = pytest.mark.everywhere


def ask(place: Place, path: str, **form: str) -> Reply:
    data = {"client_id": place.client_id, "client_secret": place.client_secret, "grant_type": "client_credentials"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return place.http.request("POST", place.login_host, path, urlencode({**data, **form}).encode(), headers)


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, claims, _ = token.split(".")
    return json.loads(unb64url(head)), json.loads(unb64url(claims))


@everywhere
def test_claims_are_those_of_key_vault_tokens(place: Place) -> None:
    before = int(time.time())
    reply = ask(place, f"/{place.tenant}/oauth2/v2.0/token", scope=f"{place.resource}/.default").json
    assert (reply["token_type"], type(reply["expires_in"]), type(reply["ext_expires_in"])) == ("Bearer", int, int)
    assert reply["expires_in"] >= 600, "below 300 s SDKs ask again for every call"
    head, claims = parts(reply["access_token"])
    assert (head["alg"], head["typ"]) == ("RS256", "JWT")
    assert head["kid"] and head.get("x5t", head["kid"]) == head["kid"]
    assert claims["aud"] == place.resource
    assert (claims["tid"], claims["appid"], claims["appidacr"]) == (place.tenant, place.client_id, "1")
    assert claims["iss"] == claims["idp"] and f"/{place.tenant}/" in claims["iss"]
    if not place.own_domain:
        assert claims["iss"] == f"https://sts.windows.net/{place.tenant}/"
    assert claims["sub"] == claims["oid"] != place.client_id, "policies name the object, not the application"
    assert (claims["ver"], claims.get("idtyp", "app")) == ("1.0", "app")
    assert all(type(claims[name]) is int for name in ("iat", "nbf", "exp"))
    assert before - 400 <= claims["nbf"] <= claims["iat"] <= int(time.time()) + 1
    assert abs(claims["exp"] - before - reply["expires_in"]) <= 5
    assert claims["uti"]
    again = parts(
        ask(place, f"/{place.tenant}/oauth2/v2.0/token", scope=f"{place.resource}/.default").json["access_token"]
    )
    assert again[1]["oid"] == claims["oid"] and again[1]["uti"] != claims["uti"]


@everywhere
def test_tokens_verify_under_the_published_keys(place: Place) -> None:
    document = place.http.request(
        "GET", place.login_host, f"/{place.tenant}/v2.0/.well-known/openid-configuration"
    ).json
    host, _, path = document["jwks_uri"].removeprefix("https://").partition("/")
    published = place.http.request("GET", host, "/" + path)
    assert published.status == 200
    token = place.token()
    head, _ = parts(token)
    jwk = next(key for key in published.json["keys"] if key["kid"] == head["kid"])
    numbers = rsa.RSAPublicNumbers(int.from_bytes(unb64url(jwk["e"]), "big"), int.from_bytes(unb64url(jwk["n"]), "big"))
    assert numbers.n.bit_length() >= 2048
    signed, _, signature = token.rpartition(".")
    numbers.public_key().verify(unb64url(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    if chain := jwk.get("x5c"):
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0]))
        assert certificate.public_key().public_numbers() == numbers
        thumbprint = hashlib.sha1(base64.b64decode(chain[0]), usedforsecurity=False).digest()
        assert unb64url(jwk["x5t"]) == thumbprint
    assert not {"d", "p", "q", "dp", "dq", "qi"} & set(jwk)


@everywhere
def test_a_discovered_token_endpoint_gives_tokens(place: Place) -> None:
    for tenant in (place.tenant, place.tenant.upper()):
        path = f"/{tenant}/v2.0/.well-known/openid-configuration"
        document = place.http.request("GET", place.login_host, path)
        assert document.status == 200, document
        endpoint = document.json["token_endpoint"]
        assert endpoint.startswith(f"https://{place.login_host}/{place.tenant}/")
        assert ask(place, "/" + endpoint.split("/", 3)[3], scope=f"{place.resource}/.default").status == 200


def test_version_1_answers_in_strings(dev_place: Place) -> None:
    answer = ask(dev_place, f"/{dev_place.tenant}/oauth2/token", resource="https://vault.azure.net").json
    for member in ("expires_in", "ext_expires_in", "expires_on", "not_before"):
        assert isinstance(answer[member], str) and answer[member].isdigit(), member
    assert answer["resource"] == "https://vault.azure.net"
    assert abs(int(answer["expires_on"]) - time.time() - int(answer["expires_in"])) < 10


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        ("https://vault.azure.net/.default", "https://vault.azure.net"),
        ("https://management.azure.com/.default", "https://management.azure.com"),
        # az adds `/.default` to a resource that ends in a slash; the slash stays.
        ("https://management.core.windows.net//.default", "https://management.core.windows.net/"),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com"),
    ],
)
def test_scope_becomes_audience(dev_place: Place, scope: str, audience: str) -> None:
    answer = ask(dev_place, f"/{dev_place.tenant}/oauth2/v2.0/token", scope=scope)
    assert answer.status == 200, answer
    assert parts(answer.json["access_token"])[1]["aud"] == audience


def test_answers_are_not_to_be_kept(dev_place: Place) -> None:
    for form in (
        {"scope": "https://vault.azure.net/.default"},
        {"scope": "https://vault.azure.net/.default", "client_secret": "x"},
    ):
        answer = ask(dev_place, f"/{dev_place.tenant}/oauth2/v2.0/token", **form)
        assert answer.header("Cache-Control") is not None and "no-store" in answer.header("Cache-Control")
        assert answer.header("Content-Type").split(";")[0] == "application/json"


def test_refusals_carry_what_clients_print(dev_place: Place) -> None:
    answer = ask(
        dev_place, f"/{dev_place.tenant}/oauth2/v2.0/token", scope="https://vault.azure.net/.default", client_secret="x"
    )
    assert answer.status == 401
    body = answer.json
    assert body["error"] == "invalid_client" and body["error_description"].startswith("AADSTS7000215: ")
    assert body["error_codes"] == [7000215]
    for member in ("timestamp", "trace_id", "correlation_id"):
        assert body[member], member
    assert dev_place.client_secret not in answer.body.decode()


# --- through azure-identity -------------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"client_secret": "not-the-secret"}, "AADSTS7000215"),
        ({"client_id": "11111111-2222-3333-4444-555555555555"}, "AADSTS700016"),
        ({"tenant_id": "11111111-2222-3333-4444-555555555555"}, "Unable to get authority configuration|AADSTS90002"),
    ],
    ids=["secret", "application", "tenant"],
)
def test_wrong_credentials(place: Place, change: dict[str, str], text: str) -> None:
    with (
        ClientSecretCredential(**{**place.credential_arguments(), **change}) as credential,
        pytest.raises((ClientAuthenticationError, ValueError), match=text),
    ):
        credential.get_token(f"{place.resource}/.default")


def test_the_adfs_way_needs_no_switch(dev_place: Place) -> None:
    """Tenant `adfs` with an authority of one's own: no instance discovery, and any challenge's tenant will do."""
    arguments = {**dev_place.credential_arguments(), "tenant_id": "adfs"}
    with (
        ClientSecretCredential(**arguments) as credential,
        SecretClient(dev_place.url(), credential, **dev_place.sdk()) as client,
    ):
        client.set_secret("through-adfs", "v")
        assert client.get_secret("through-adfs").value == "v"


def test_dev_under_a_name_of_its_own(dev_place: Place) -> None:
    """`vault.localhost` and `login.localhost` are the same service under names that never leave the machine."""
    arguments = {
        **dev_place.credential_arguments(),
        "authority": "https://login.localhost",
        "disable_instance_discovery": True,
    }
    url = dev_place.url().replace("vault.azure.net", "vault.localhost")
    with ClientSecretCredential(**arguments) as credential, SecretClient(url, credential, **dev_place.sdk()) as client:
        client.set_secret("by-another-name", "v")
        assert client.get_secret("by-another-name").properties.vault_url == url
    assert dev_place.ok("GET", "/secrets/by-another-name")["value"] == "v"


def test_challenge_verification_is_on(dev_place: Place) -> None:
    """The SDK hands a token to no vault whose challenge names another resource; ours all name the right one."""
    for vault in dev_place.vaults:
        challenge = dev_place.http.request("GET", dev_place.host(vault), "/keys?api-version=7.4").header(
            "WWW-Authenticate"
        )
        resource = challenge.split('resource="')[1].split('"')[0]
        assert dev_place.host(vault).endswith("." + resource.removeprefix("https://"))
