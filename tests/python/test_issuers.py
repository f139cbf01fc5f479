"""Tokens of other issuers: workload identities, principals that the operator believes another issuer about; and managed
identities, which need no credentials."""

from __future__ import annotations

import http.client
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientAssertionCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import harness
from harness import Cluster, Dev, Place, Reply, b64url
from test_az import AZ, ROOT, Az
from test_identity import parts
from test_users import graph, let_in

EXCHANGE = "api://AzureADTokenExchange"
OURS = "api://claviger"


def number(value: int, length: int | None = None) -> str:
    return b64url(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


class Issuer:
    """An issuer of OpenID Connect, as far as its keys go."""

    def __init__(self, name: str):
        self.issuer = f"https://{name}.example.com"
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.kids = {"RS256": f"{name}-rsa", "ES256": f"{name}-ec"}

    def jwks(self) -> dict[str, Any]:
        plain, point = self.rsa.public_key().public_numbers(), self.ec.public_key().public_numbers()
        return {
            "keys": [
                {"kty": "RSA", "use": "sig", "kid": self.kids["RS256"], "n": number(plain.n), "e": number(plain.e)},
                {
                    **{"kty": "EC", "crv": "P-256", "kid": self.kids["ES256"]},
                    **{"x": number(point.x, 32), "y": number(point.y, 32)},
                },
                # Of a kind that nobody can check a signature with.
                {"kty": "oct", "kid": "secret", "k": "AAAA"},
            ]
        }

    def sign(self, head: dict[str, Any], claims: dict[str, Any]) -> str:
        first = ".".join(b64url(json.dumps(part).encode()) for part in (head, claims))
        if head["alg"] == "ES256":
            r, s = decode_dss_signature(self.ec.sign(first.encode(), ec.ECDSA(hashes.SHA256())))
            return f"{first}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        if head["alg"] == "RS256":
            return f"{first}.{b64url(self.rsa.sign(first.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
        return f"{first}."

    def token(self, alg: str = "RS256", head: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        base = {"iss": self.issuer, "sub": "repo:a/b", "aud": EXCHANGE, "iat": now, "nbf": now, "exp": now + 600}
        return self.sign({"alg": alg, "typ": "JWT", "kid": self.kids.get(alg), **(head or {})}, {**base, **claims})


class Published:
    """Where an issuer publishes its keys; it counts who asks, and may be away."""

    def __init__(self, issuer: Issuer):
        self.document, self.asked, self.away = issuer.jwks(), 0, False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = json.dumps(outer.document).encode()
                self.send_response(500 if outer.away else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def filed() -> Issuer:
    """Its keys are in a file; it has principals of its own."""
    return Issuer("filed")


@pytest.fixture(scope="module")
def online() -> Issuer:
    """Its keys are at an address; its tokens stand for applications only."""
    return Issuer("online")


@pytest.fixture(scope="module")
def published(online: Issuer) -> Iterator[Published]:
    made = Published(online)
    yield made
    made.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, filed: Issuer, published: Published) -> str:
    """Both, as the tables of a configuration."""
    keys = tmp_path_factory.mktemp("issuers") / "filed.json"
    keys.write_text(json.dumps(filed.jwks()))
    return (
        f'[[ISSUERS]]\nissuer = "{filed.issuer}"\njwks = "{keys}"\naudience = ["{OURS}", "another"]\n'
        'groups_claim = "groups"\n'
        f'[[ISSUERS]]\nissuer = "https://online.example.com"\njwks = "{published.url}"\n'
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, settings: str) -> Iterator[Dev]:
    directory = tmp_path_factory.mktemp("issuers-dev")
    (directory / "issuers.toml").write_text(settings.replace("ISSUERS", "issuers"))
    options = ("--issuers", str(directory / "issuers.toml"), "--managed-identity")
    # A name of its own: SDKs keep what a host has said about its tenant for as long as the process lives.
    with harness.dev_server(directory / "data", ("workloads",), options) as dev:
        yield dev


@pytest.fixture(scope="module")
def here(server: Dev) -> Place:
    return server.place()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, settings: str) -> Iterator[Cluster]:
    with harness.cluster(tmp_path_factory.mktemp("issuers-nodes"), settings.replace("ISSUERS", "identity.issuers")) as n:
        yield n


def own_application(place: Place, name: str) -> tuple[str, str, str]:
    """A new application without a secret, with rights in the vault: its ids as object of the directory, as client and
    as principal."""
    made = graph(place, "POST", "/applications", {"displayName": name})
    assert made.status == 201, made
    principal = graph(place, "POST", "/servicePrincipals", {"appId": made.json["appId"]})
    assert principal.status == 201, principal
    let_in(place, principal.json["id"])
    return made.json["id"], made.json["appId"], principal.json["id"]


def trust(place: Place, application: str, name: str, issuer: str, subject: str = "repo:a/b") -> None:
    body = {"name": name, "issuer": issuer, "subject": subject, "audiences": [EXCHANGE]}
    made = graph(place, "POST", f"/applications/{application}/federatedIdentityCredentials", body)
    assert made.status == 201, made


def exchange(place: Place, client: str, assertion: str) -> Reply:
    form = {
        "client_id": client,
        "grant_type": "client_credentials",
        "scope": f"{place.resource}/.default",
        "client_assertion": assertion,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    path = f"/{place.tenant}/oauth2/v2.0/token"
    return place.http.request("POST", place.login_host, path, urlencode(form).encode(), headers)


def refused(reply: Reply, *codes: int) -> str:
    assert reply.status == 401, reply
    assert reply.json["error"] == "invalid_client" and reply.json["error_codes"][0] in codes, reply
    return reply.json["error_description"]


# --- workload identities ----------------------------------------------------------------------------------------------


def test_a_workload_signs_in_on_every_node(nodes: Cluster, online: Issuer, filed: Issuer, name: str) -> None:
    application, client, oid = own_application(nodes.places()[0], name)
    trust(nodes.places()[0], application, "ci", online.issuer)
    trust(nodes.places()[0], application, "file", filed.issuer, "other")
    for place in nodes.places():
        for assertion in (online.token(), online.token("ES256"), filed.token(sub="other", aud=[EXCHANGE, "x"])):
            answer = exchange(place, client, assertion)
            assert answer.status == 200, answer
            _, claims = parts(answer.json["access_token"])
            assert (claims["oid"], claims["appid"], claims["appidacr"]) == (oid, client, "2")
            assert place.call("GET", "/secrets", token=answer.json["access_token"]).status == 200


def test_what_does_not_match_gets_nothing(here: Place, online: Issuer, filed: Issuer, name: str) -> None:
    application, client, _ = own_application(here, name)
    ask = lambda assertion: exchange(here, client, assertion)  # noqa: E731
    # Nothing is trusted before it is said.
    refused(ask(online.token()), 700211)
    trust(here, application, "ci", online.issuer)
    assert ask(online.token()).status == 200
    now = int(time.time())
    assert online.issuer in refused(ask(online.token(iss=online.issuer + "/")), 700211)
    refused(ask(filed.token()), 700211)
    assert "'repo:a/c'" in refused(ask(online.token(sub="repo:a/c")), 700213)
    refused(ask(online.token(sub="REPO:A/B")), 700213)
    refused(ask(online.token(sub=None)), 700213)
    assert "'api://other'" in refused(ask(online.token(aud="api://other")), 700212)
    refused(ask(online.token(aud=[])), 700212)
    refused(ask(online.token(exp=now - 400)), 700024)
    refused(ask(online.token(nbf=now + 400)), 700024)
    refused(ask(online.token(exp=None)), 700024)
    # Under a key that is not the issuer's, however it is called.
    stranger = Issuer("online")
    refused(ask(stranger.token()), 700027)
    refused(ask(stranger.token(head={"kid": "unknown"})), 700027)
    refused(ask(online.token("none", {"kid": online.kids["RS256"]})), 700027)
    refused(ask(online.token(head={"alg": "RS256", "crit": ["exp"], "exp": 1})), 700027)
    good = online.token()
    refused(ask(good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB")), 700027)
    refused(ask("x.y.z"), 700027)
    assert "access_token" not in json.dumps(ask("a" * 100_000).json)
    # Another application does not take what this one does.
    _, other, _ = own_application(here, f"{name}-2")
    refused(exchange(here, other, online.token()), 700211)
    # What is taken back is over.
    found = graph(here, "GET", f"/applications/{application}/federatedIdentityCredentials").json["value"]
    path = f"/applications/{application}/federatedIdentityCredentials/{found[0]['id']}"
    assert graph(here, "DELETE", path).status == 204
    refused(ask(online.token()), 700211)


def test_keys_are_fetched_when_they_are_needed_and_not_at_a_client_s_wish(
    tmp_path: Path, name: str
) -> None:
    issuer = Issuer("rotating")
    published = Published(issuer)
    published.away = True
    (tmp_path / "issuers.toml").write_text(f'[[issuers]]\nissuer = "{issuer.issuer}"\njwks = "{published.url}"\n')
    with harness.dev_server(tmp_path / "data", options=("--issuers", str(tmp_path / "issuers.toml"))) as dev:
        place = dev.place()
        application, client, _ = own_application(place, name)
        trust(place, application, "ci", issuer.issuer)
        assert published.asked == 0
        for _ in range(3):
            answer = exchange(place, client, issuer.token())
            assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable"), answer
        assert published.asked == 1, "an issuer that is away is not asked for each token"
        # Anything but its own tokens makes nobody ask.
        refused(exchange(place, client, Issuer("stranger").token()), 700211)
        assert published.asked == 1
        dev.process.kill()
        published.away = False
        dev.start()
        place = dev.place()
        for _ in range(3):
            assert exchange(place, client, issuer.token()).status == 200
        for n in range(5):
            refused(exchange(place, client, issuer.token(head={"kid": f"guess-{n}"})), 700027)
        assert published.asked == 2
    published.close()


def test_azure_identity_exchanges_a_token_file(here: Place, online: Issuer, tmp_path: Path, name: str) -> None:
    application, client, _ = own_application(here, name)
    trust(here, application, "k8s", online.issuer)
    file = tmp_path / "token"
    file.write_text(online.token())
    common = {"tenant_id": here.tenant, "client_id": client, "authority": here.authority, **here.sdk()}
    with (
        WorkloadIdentityCredential(token_file_path=str(file), **common) as credential,
        SecretClient(here.url(), credential, **here.sdk()) as client_of_vault,
    ):
        client_of_vault.set_secret(name, "v")
        assert client_of_vault.get_secret(name).value == "v"
    with (
        ClientAssertionCredential(func=lambda: online.token("ES256"), **common) as credential,
        SecretClient(here.url(), credential, **here.sdk()) as client_of_vault,
    ):
        assert client_of_vault.get_secret(name).value == "v"
    file.write_text(online.token(sub="repo:evil"))
    with (
        WorkloadIdentityCredential(token_file_path=str(file), **common) as credential,
        pytest.raises(ClientAuthenticationError, match="700213"),
    ):
        credential.get_token(f"{here.resource}/.default")


# --- principals of another issuer -------------------------------------------------------------------------------------


def external_id(issuer: Issuer, *what: str) -> str:
    return harness.must("identity", "external-id", "--issuer", issuer.issuer, *what).out.strip()


def test_tokens_of_a_trusted_issuer_open_what_policies_say(nodes: Cluster, filed: Issuer, name: str) -> None:
    first = nodes.places()[0]
    alice = filed.token(sub=f"alice-{name}", aud=OURS)
    grouped = filed.token(sub=f"bob-{name}", aud=["x", OURS], groups=[f"g-{name}"])
    for place in nodes.places():
        for held in (alice, grouped):
            assert place.call("GET", "/secrets", token=held).status == 403
    let_in(first, external_id(filed, "--principal", f"alice-{name}"))
    let_in(first, external_id(filed, "--group", f"g-{name}"))
    for place in nodes.places():
        for held in (alice, grouped):
            assert place.call("PUT", f"/secrets/{name}", {"value": "v"}, token=held).status == 200
    # Each of them is nobody else: not by another name, not in another issuer, not as the other kind.
    for held in (
        filed.token(sub=f"Alice-{name}", aud=OURS),
        filed.token(sub=f"g-{name}", aud=OURS),
        filed.token(sub=f"carol-{name}", aud=OURS, groups=[f"alice-{name}"]),
    ):
        assert first.call("GET", "/secrets", token=held).status == 403


def test_tokens_that_are_not_to_be_believed(here: Place, filed: Issuer, online: Issuer) -> None:
    now = int(time.time())
    assert here.call("GET", "/secrets", token=filed.token(aud=OURS)).status == 403, "known, without rights"
    for why, held in {
        "audience": filed.token(aud=EXCHANGE),
        "no audience": filed.token(aud=None),
        "over": filed.token(aud=OURS, exp=now - 400),
        "endless": filed.token(aud=OURS, exp=None),
        "not yet": filed.token(aud=OURS, nbf=now + 400),
        "no subject": filed.token(aud=OURS, sub=""),
        "groups": filed.token(aud=OURS, groups=[1]),
        "too many groups": filed.token(aud=OURS, groups=[f"g{n}" for n in range(1000)]),
        "another key": Issuer("filed").token(aud=OURS),
        "unsigned": filed.token("none", {"kid": filed.kids["RS256"]}, aud=OURS),
        "no principals": online.token(aud=OURS),
        "unknown issuer": Issuer("unknown").token(aud=OURS),
    }.items():
        reply = here.call("GET", "/secrets", token=held)
        assert reply.status == 401, (why, reply)
        assert 'resource="' in (reply.header("WWW-Authenticate") or ""), why


# --- managed identities -----------------------------------------------------------------------------------------------

ASK = """
import os, sys
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient
kind, name, client = sys.argv[1:4]
assert "AZURE_CLIENT_SECRET" not in os.environ
credential = ManagedIdentityCredential(**({"client_id": client} if client else {})) if kind == "managed" else (
    DefaultAzureCredential())
vault = SecretClient(f"https://{os.environ['CLAVIGER_VAULT']}.vault.azure.net", credential)
vault.set_secret(name, "v")
print(vault.get_secret(name).value)
"""


@pytest.mark.parametrize("shape", ["imds", "app-service"])
def test_programs_on_this_machine_need_no_credentials(server: Dev, here: Place, shape: str, name: str) -> None:
    python = str(Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python")
    start = ("exec", "--data-dir", str(server.directory), f"--managed-identity={shape}", "--", python, "-c", ASK)
    env = {"CLAVIGER_VAULT": here.vault}
    _, client, _ = own_application(here, name)
    for kind, who in (("managed", ""), ("managed", client), ("default", "")):
        done = harness.run(*start, kind, name, who, env=env, patience=60)
        assert (done.code, done.out.strip()) == (0, "v"), done
    done = harness.run(*start, "managed", name, "00000000-0000-0000-0000-000000000000", env=env, patience=60)
    assert done.code != 0 and "Identity not found" in done.err, done


def test_only_who_asks_rightly_is_given_a_managed_identity(server: Dev, here: Place) -> None:
    host, _, port = json.loads((server.directory / "run.json").read_text())["managed_identity"].rpartition(":")
    assert host == "127.0.0.1"
    secret = (server.directory / "identity-header").read_text()
    assert (server.directory / "identity-header").stat().st_mode & 0o077 == 0

    def ask(path: str, headers: dict[str, str], method: str = "GET", **query: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request(method, f"{path}?{urlencode(query)}", headers=headers)
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read() or b"null")

    imds, app_service = "/metadata/identity/oauth2/token", "/msi/token"
    old, new = {"api-version": "2018-02-01"}, {"api-version": "2019-08-01"}
    marked, shown = {"Metadata": "true"}, {"X-IDENTITY-HEADER": secret}
    resource = {"resource": here.resource}
    status, body = ask(imds, marked, **old, **resource)
    assert status == 200 and all(type(value) is str for value in body.values()), body
    assert {"access_token", "client_id", "expires_in", "expires_on", "not_before", "resource", "token_type"} <= set(body)
    assert (body["client_id"], body["resource"]) == (here.client_id, here.resource)
    assert here.call("GET", "/secrets", token=body["access_token"]).status == 200
    assert ask(app_service, shown, **new, **resource)[0] == 200
    # The last two: a page of a name that leads here, and something that passes requests on.
    for wrong in ({}, {"Metadata": "false"}, {**marked, "Host": "rebound.example.com"}, {**marked, "Forwarded": "for=x"}):
        status, body = ask(imds, wrong, **old, **resource)
        assert (status, body["error"]) == (400, "invalid_request"), wrong
    for version in ("", "2017-01-01", "zzzzzzzzzz"):
        assert ask(imds, marked, **resource, **{"api-version": version})[0] == 400, version
    for wrong in ({}, {"Metadata": "false"}, {**marked, "X-Forwarded-For": "10.0.0.1"}):
        status, body = ask(imds, wrong, **old, **resource)
        assert (status, body["error"]) == (400, "invalid_request"), wrong
    for wrong in ({}, marked, {"X-IDENTITY-HEADER": "x"}, {"X-IDENTITY-HEADER": ""}):
        assert ask(app_service, wrong, **new, **resource)[0] == 401, wrong
    assert ask(imds, marked, **resource)[0] == 400
    assert ask(imds, marked, **old)[0] == 400
    assert ask(imds, marked, **old, resource="https://evil.example.com")[0] == 400
    assert ask(imds, marked, "POST", **old, **resource)[0] == 405
    assert ask(imds, marked, **old, **resource, client_id="x", object_id="y")[0] == 400
    assert ask("/metadata/instance", marked, **old)[0] == 404


def test_without_the_option_there_is_no_managed_identity(dev: Dev) -> None:
    assert json.loads((dev.directory / "run.json").read_text())["managed_identity"] is None
    done = harness.run("exec", "--data-dir", str(dev.directory), "--managed-identity", "--", "true")
    assert done.code != 0 and "--managed-identity" in done.err, done


def test_a_node_gives_the_identities_that_its_operator_names(nodes: Cluster, tmp_path: Path, name: str) -> None:
    _, client, oid = own_application(nodes.places()[0], name)
    _, unnamed, _ = own_application(nodes.places()[0], f"{name}-2")
    node, port = nodes.nodes[2], harness.free_port()
    before = node.settings
    node.settings = f'{before}\n[managed_identity]\nlisten = "127.0.0.1:{port}"\nuser = ["{client}"]\n'
    assert node.process.stop() == 0
    node.write_config(nodes.nodes)
    node.start()
    harness.eventually("it is ready", node.ready)

    def ask(**more: str) -> tuple[int, Any]:
        query = urlencode({"api-version": "2018-02-01", "resource": nodes.places()[2].resource, **more})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", f"/metadata/identity/oauth2/token?{query}", headers={"Metadata": "true"})
        with connection.getresponse() as answer:
            return answer.status, json.loads(answer.read())

    # Without a header for the other shape there is none of it; 404 would have clients try again.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/msi/token?api-version=2019-08-01&resource=x", headers={"X-IDENTITY-HEADER": ""})
    with connection.getresponse() as answer:
        assert (answer.status, b"turned off" in answer.read()) == (400, True)
    for chosen in ({}, {"client_id": client}, {"object_id": oid}):
        status, body = ask(**chosen)
        assert (status, body.get("client_id")) == (200, client), body
        assert nodes.places()[0].call("GET", "/secrets", token=body["access_token"]).status == 200
    assert ask(client_id=unnamed)[0] == 400
    assert ask(client_id=nodes.credentials["client_id"])[0] == 400


# --- configuration ----------------------------------------------------------------------------------------------------


def test_all_problems_of_issuers_are_told_at_once(nodes: Cluster, tmp_path: Path) -> None:
    text = nodes.nodes[0].config.read_text().split("[[identity.issuers]]")[0]
    (tmp_path / "no-keys.json").write_text('{"keys": []}')
    # To be guessed.
    (tmp_path / "header").write_text("short\n")
    (tmp_path / "header").chmod(0o600)
    bad = tmp_path / "bad.toml"
    bad.write_text(
        text
        + f"""
[[identity.issuers]]
issuer = "http://plain.example.com"
jwks = "http://plain.example.com/keys"
color = "red"
refresh_seconds = 0
[[identity.issuers]]
issuer = "https://a.example.com"
jwks = "{tmp_path}/no-keys.json"
oid_claim = "oid"
[[identity.issuers]]
audience = "x"
object_ids = "guessed"
tenant = "contoso"
[managed_identity]
listen = "0.0.0.0:{harness.free_port()}"
user = ["everybody"]
header_file = "{tmp_path}/header"
"""
    )
    done = harness.run("config", "check", str(bad))
    assert done.code != 0
    for path in (
        *("identity.issuers[0].issuer", "identity.issuers[0].jwks", "identity.issuers[0].color"),
        "identity.issuers[0].refresh_seconds",
        *("identity.issuers[1].jwks", "identity.issuers[1].oid_claim"),
        *("identity.issuers[2].issuer", "identity.issuers[2].jwks", "identity.issuers[2].object_ids"),
        *("identity.issuers[2].tenant", "managed_identity.listen", "managed_identity.user"),
        "managed_identity.header_file: its first line is not 16 or more",
    ):
        assert path in done.out + done.err, (path, done)


# --- az ---------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_az_signs_in_without_a_secret(server: Dev, here: Place, online: Issuer, tmp_path: Path, name: str) -> None:
    subprocess.run([str(ROOT / "tests" / "python" / "az-venv.sh")], check=True, timeout=600)
    az = Az(server)
    application, client, _ = own_application(here, name)
    trust(here, application, "ci", online.issuer)
    own = {"AZURE_CONFIG_DIR": str(tmp_path / "federated")}
    sign_in = ("login", "--service-principal", "-u", client, "--tenant", here.tenant, "--allow-no-subscriptions")
    az.refused(1, "700213", *sign_in, "--federated-token", online.token(sub="else"), env=own)
    accounts = az(*sign_in, "--federated-token", online.token(), env=own)
    assert accounts[0]["user"] == {"name": client, "type": "servicePrincipal"}
    az("keyvault", "secret", "set", "--vault-name", here.vault, "-n", name, "--value", "v", env=own)

    # And as a program of a machine that has an identity.
    start = ("exec", "--data-dir", str(server.directory), "--managed-identity", "--", str(AZ))
    own = {"AZURE_CONFIG_DIR": str(tmp_path / "managed")}
    done = harness.run(*start, "login", "--identity", env=own, patience=60)
    assert done.code == 0 and done.json()[0]["id"] == az.subscription, done
    shown = ("keyvault", "secret", "show", "--vault-name", here.vault, "-n", name)
    done = harness.run(*start, *shown, env=own, patience=60)
    assert done.code == 0 and done.json()["value"] == "v", done
