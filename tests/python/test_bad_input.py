"""Input that no SDK would send: odd HTTP, odd TLS, random bodies and paths. Nothing gets a 500, and nothing stops."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import harness
from harness import SEED, Dev, Place, b64url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A server of this suite's own: what breaks it breaks no other test."""
    with harness.dev_server(tmp_path_factory.mktemp("bad-input") / "data") as dev:
        yield dev


@pytest.fixture(scope="module")
def at(server: Dev) -> Place:
    place = server.place()
    place.ok("POST", "/keys/rsa/create", {"kty": "RSA"})
    place.ok("POST", "/keys/ec/create", {"kty": "EC"})
    place.ok("PUT", "/secrets/s", {"value": "v"})
    return place


@pytest.fixture(autouse=True)
def _goes_on(server: Dev, at: Place) -> Iterator[None]:
    yield
    assert server.process.alive
    assert at.ok("GET", "/secrets/s")["value"] == "v"
    assert "panicked" not in server.process.text()


@contextlib.contextmanager
def tls(server: Dev, at: Place, name: str = "demo.vault.azure.net") -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=at.ca)
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        yield secure


def answer(secure: ssl.SSLSocket) -> bytes:
    """All that comes until the server closes, or falls silent after an answer."""
    got = b""
    secure.settimeout(10)
    with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
        while chunk := secure.recv(65_536):
            got += chunk
            secure.settimeout(0.3)
    return got


def status(got: bytes) -> int:
    assert got.startswith(b"HTTP/1."), got[:100]
    return int(got.split(b" ", 2)[1])


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_plain_http_gets_no_answer(server: Dev) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
        plain.sendall(b"GET /secrets/s?api-version=7.4 HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n")
        plain.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(1000).startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(server: Dev, at: Place, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=at.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = version
        context.maximum_version = version
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="demo.vault.azure.net")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_present_tls_is_served(server: Dev, at: Place, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=at.ca)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="x.vault.azure.net") as secure,
    ):
        assert secure.version() == version.name.replace("v1_", "v1.")


def test_certificate_passes_the_strictest_client(server: Dev, at: Place) -> None:
    """Python from 3.13 on checks like this (contract, identity.md section 8)."""
    context = ssl.create_default_context(cafile=at.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in (
        "demo.vault.azure.net",
        "demo.vault.azure.cn",
        "login.microsoftonline.com",
        "login.chinacloudapi.cn",
        "management.azure.com",
        "graph.microsoft.com",
        "demo.vault.localhost",
        "login.localhost",
    ):
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain:
            context.wrap_socket(plain, server_hostname=name).close()
    for name in ("example.org", "a.b.vault.azure.net", "vault.azure.net"):
        with socket.create_connection(("127.0.0.1", server.port), 10) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname=name)


# --- HTTP ------------------------------------------------------------------------------------------------------------

ASK = "GET /secrets/s?api-version=7.4 HTTP/1.1\r\nHost: demo.vault.azure.net\r\n"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("GARBAGE\r\n\r\n", {400}),
        ("GET / HTTP/9.9\r\n\r\n", {400, 505}),
        ("GET /secrets/s HTTP/1.1\r\n\r\n", {400, 421}),
        (ASK.replace("demo", "DEMO") + "\r\n", {401}),
        (ASK.replace(".net", ".net:443") + "\r\n", {401}),
        (ASK.replace(".net", ".net.") + "\r\n", {401, 421}),
        (ASK.replace("demo.vault.azure.net", "example.org") + "\r\n", {421}),
        (ASK.replace("demo.vault", "a.b.vault") + "\r\n", {421}),
        (ASK.replace("demo.", "nobody.") + "\r\n", {404}),
        (ASK.replace("demo.", "-.") + "\r\n", {404}),
        (ASK + "Host: other.vault.azure.net\r\n\r\n", {400, 401}),
        (ASK + "Content-Length: -1\r\n\r\n", {400}),
        (ASK + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", {400}),
        (ASK + "Content-Length: 99999999999999999999\r\n\r\n", {400, 413}),
        (ASK + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", {400, 401}),
        (ASK + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", {400, 401}),
        (ASK + "Transfer-Encoding: gzip\r\n\r\n", {400, 401, 501}),
        (ASK + "X: " + "x" * 300_000 + "\r\n\r\n", {400, 413, 414, 431}),
        (ASK + "".join(f"X-{i}: y\r\n" for i in range(2000)) + "\r\n", {400, 413, 414, 431}),
        ("GET /" + "x" * 300_000 + " HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n", {400, 414, 431, 413}),
        (ASK + "Authorization: Bearer \xff\xfe\r\n\r\n", {400, 401}),
        (ASK + "Authorization: Bearer " + "a" * 60_000 + "\r\n\r\n", {400, 401, 431}),
        (
            "GET https://demo.vault.azure.net/secrets/s?api-version=7.4 HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n",
            {401},
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n", {400, 401, 404, 405}),
        ("TRACE /secrets/s HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n", {400, 401, 405}),
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", {400, 405, 421}),
        (ASK.replace("HTTP/1.1", "HTTP/1.0") + "\r\n", {401}),
        (ASK + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", {100, 401}),
        (ASK + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", {401}),
    ],
)
def test_odd_requests(server: Dev, at: Place, text: str, allowed: set[int]) -> None:
    with tls(server, at) as secure:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            secure.sendall(text.encode("latin-1"))
        got = answer(secure)
    # Closing without a word is an answer too, but only to what is too large or no HTTP.
    if not got:
        assert allowed & {400, 413, 414, 431} and 401 not in allowed or len(text) > 50_000
        return
    assert status(got) in allowed, got[:300]
    assert got.count(b"HTTP/1.1 2") == 0


def test_chunked_bodies_are_bodies(server: Dev, at: Place) -> None:
    body = json.dumps({"value": "in chunks"}).encode()
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    head = (
        "PUT /secrets/chunked?api-version=7.4 HTTP/1.1\r\nHost: demo.vault.azure.net\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {at.token()}\r\n\r\n"
    )
    with tls(server, at) as secure:
        secure.sendall(head.encode() + chunks)
        assert status(answer(secure)) == 200
    assert at.ok("GET", "/secrets/chunked")["value"] == "in chunks"


def test_requests_in_a_row_are_answered_in_a_row(server: Dev, at: Place) -> None:
    """Pipelining; and a refused request leaves the next one on the connection what it is."""
    token = f"Authorization: Bearer {at.token()}\r\n\r\n"
    one, bad = ASK + token, ASK.replace("secrets/s", "secrets/a_b") + token
    with tls(server, at) as secure:
        secure.sendall((one + bad + one).encode())
        got = answer(secure)
    assert [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]] == [200, 400, 200]


def test_an_unread_body_does_not_become_a_request(server: Dev, at: Place) -> None:
    """A 401 goes out before the body is read: what is in the body must not be taken for the next request."""
    inner = f"{ASK}Authorization: Bearer {at.token()}\r\n\r\n"
    outer = ASK.replace("GET", "PUT") + f"Content-Length: {len(inner)}\r\n\r\n"
    with tls(server, at) as secure:
        secure.sendall((outer + inner).encode())
        got = answer(secure)
    assert [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]] == [401]


def test_connections_that_say_nothing_hold_nothing_up(server: Dev, at: Place) -> None:
    with contextlib.ExitStack() as stack:
        for i in range(300):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            if i % 2:
                silent.sendall(b"\x16\x03\x01")
        assert at.new_http().request("GET", at.host(), "/secrets/s?api-version=7.4").status == 401


def test_the_connect_endpoint_leads_nowhere_else(server: Dev, at: Place) -> None:
    address = at.proxy.removeprefix("http://").split(":")
    for text, wanted in (
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", b"403"),
        ("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", b"403"),
        ("CONNECT localhost.example.org:443 HTTP/1.1\r\n\r\n", b"403"),
        ("CONNECT evil-vault.azure.net.example.org:443 HTTP/1.1\r\n\r\n", b"403"),
        ("GET http://demo.vault.azure.net/ HTTP/1.1\r\nHost: demo.vault.azure.net\r\n\r\n", b""),
        ("CONNECT demo.vault.azure.net:443 HTTP/1.1\r\n\r\n", b"200"),
        ("CONNECT " + "x" * 20_000 + ":443 HTTP/1.1\r\n\r\n", b""),
        ("nonsense\r\n\r\n", b""),
    ):
        with socket.create_connection((address[0], int(address[1])), 10) as plain:
            plain.sendall(text.encode())
            plain.settimeout(10)
            got = b""
            with contextlib.suppress(ConnectionError):
                got = plain.recv(4096)
            code = got.split(b" ")[1] if got else b""
            assert code == wanted if wanted else not code.startswith(b"2"), (text[:60], got)


# --- random input ----------------------------------------------------------------------------------------------------

TARGETS = [
    ("PUT", "/secrets/{name}", {"value": "v", "tags": {"a": "b"}, "attributes": {"enabled": True, "exp": 4102444800}}),
    ("PATCH", "/secrets/s/", {"contentType": "t", "attributes": {"nbf": 1}}),
    (
        "POST",
        "/keys/{name}/create",
        {"kty": "EC", "crv": "P-256", "key_ops": ["sign"], "attributes": {"enabled": True}},
    ),
    ("PATCH", "/keys/ec/", {"key_ops": ["sign", "verify"], "tags": {"a": "b"}}),
    ("PUT", "/keys/{name}", {"key": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}, "Hsm": False}),
    ("PUT", "/keys/{name}", {"key": {"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AA", "p": "AA", "q": "AA"}}),
    ("PUT", "/keys/{name}", {"key": {"kty": "oct-HSM", "k": "AAAAAAAAAAAAAAAAAAAAAA"}}),
    ("PUT", "/keys/{name}", {"key": {"kty": "RSA-HSM", "key_hsm": "e30"}}),
    ("POST", "/keys/rsa/sign", {"alg": "RS256", "value": "A" * 43}),
    ("POST", "/keys/rsa/verify", {"alg": "PS256", "digest": "A" * 43, "value": "A" * 342}),
    ("POST", "/keys/rsa/decrypt", {"alg": "RSA-OAEP", "value": "A" * 342, "iv": "AA", "tag": "AA"}),
    ("POST", "/keys/rsa/encrypt", {"alg": "RSA1_5", "value": "AA"}),
    ("POST", "/keys/rsa/unwrapkey", {"alg": "RSA-OAEP-256", "value": "A" * 342}),
    ("POST", "/keys/ec/sign", {"alg": "ES256", "value": "A" * 43}),
    ("POST", "/keys/ec/verify", {"alg": "ES256", "digest": "A" * 43, "value": "A" * 86}),
    (
        "PUT",
        "/keys/ec/rotationpolicy",
        {"lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}]},
    ),
    ("POST", "/keys/rsa/release", {"target": "a.b.c", "nonce": "n", "enc": "CKM_RSA_AES_KEY_WRAP"}),
    ("POST", "/keys/restore", {"value": b64url(b"CLVB\x01" + b"\0" * 60)}),
    ("POST", "/secrets/restore", {"value": b64url(b"CLVB\x01" + b"\0" * 60)}),
]

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 1e308, 0.5, "", " ", "\0", "a" * 5000, "é",
    "\U0001f511", "A", "AA==", "=", "AAA", "P0D", "P99999999999Y", "PT1S", [], {}, [[]], {"": ""}, ["sign"] * 100,
    {"a": None}, "RSA", "EC", "oct", "null", "../..",
]  # fmt: skip


def mutate(choose: random.Random, value: Any) -> Any:
    """The value with something changed somewhere."""
    if isinstance(value, dict) and value and choose.random() < 0.85:
        changed = dict(value)
        member = choose.choice(list(changed))
        match choose.randrange(5):
            case 0:
                del changed[member]
            case 1:
                changed[member] = choose.choice(ODD)
            case 2:
                changed[choose.choice(list(value) + ["kid", "x", "k", "managed"])] = choose.choice(ODD)
            case _:
                changed[member] = mutate(choose, changed[member])
        return changed
    if isinstance(value, list) and value and choose.random() < 0.7:
        return choose.choice([value * 3, value[:-1], [mutate(choose, value[0])]])
    if isinstance(value, str) and value and choose.random() < 0.6:
        at = choose.randrange(len(value))
        return value[:at] + choose.choice([*string.printable, "é", ""]) + value[at + choose.randrange(2) :]
    return choose.choice(ODD)


def expected(reply: harness.Reply) -> bool:
    """An answer, or a refusal with a code; not implemented is one, a fault of ours is not."""
    if reply.status in (200, 204):
        return True
    return reply.status in (400, 401, 403, 404, 405, 409, 413, 501) and bool(reply.error["code"])


def test_random_bodies(at: Place) -> None:
    choose = random.Random(f"{SEED} bodies")
    for number in range(2500):
        method, path, good = choose.choice(TARGETS)
        body = good
        for _ in range(choose.randrange(1, 4)):
            body = mutate(choose, body)
        data = json.dumps(body).encode()
        if choose.random() < 0.1:
            cut = choose.randrange(len(data) + 1)
            data = data[:cut] + choose.randbytes(choose.randrange(4)) + data[cut + choose.randrange(3) :]
        reply = at.call(method, path.format(name=f"fuzz-{number % 50}"), data)
        assert expected(reply), f"{method} {path} {data!r}: {reply}"


def test_random_paths_and_queries(at: Place) -> None:
    choose = random.Random(f"{SEED} paths")
    words = [
        "keys", "secrets", "deletedkeys", "deletedsecrets", "s", "rsa", "versions", "restore", "create", "sign",
        "backup", "recover", "", ".", "..", "%2e%2e", "%2F", "%00", "%ff", "%", "a" * 200, "é", "rotationpolicy", "rng",
        "0" * 32, "certificates", ";", "*",
    ]  # fmt: skip
    queries = [
        "", "api-version=7.4", "api-version=", "api-version", "api-version=7.4&api-version=7.0", "API-VERSION=7.4", "=",
        "&&&", "api-version=%37.4", "api-version=7.4&maxresults=1", "api-version=7.4&maxresults=%00",
        "api-version=7.4&$skiptoken=", "api-version=7.4&$skiptoken=%ff", "api-version=7.4&" + "x=1&" * 500,
        "api-version=7.4&$skiptoken=" + b64url(b'{"NextMarker":"x","TargetLocation":0}'),
    ]  # fmt: skip
    for _ in range(1200):
        segments = [choose.choice(words) for _ in range(choose.randrange(1, 6))]
        path = "/" + "/".join(quote(segment, safe="%;*.") for segment in segments)
        method = choose.choice(["GET", "GET", "POST", "PUT", "PATCH", "DELETE"])
        if method == "DELETE" and segments[0].lower() == "secrets":
            continue
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        target = path + "?" + choose.choice(queries)
        reply = at.call(method, target, body, version=None)
        assert expected(reply), f"{method} {target}: {reply}"


def test_random_identity_requests(at: Place) -> None:
    choose = random.Random(f"{SEED} identity")
    form = {
        "client_id": at.client_id,
        "client_secret": "x",
        "grant_type": "client_credentials",
        "scope": "https://vault.azure.net/.default",
    }
    tenants = [at.tenant, "common", "organizations", "adfs", "", "..", "%00", "é", "x" * 3000, at.tenant.upper()]
    paths = [
        "oauth2/v2.0/token", "oauth2/token", "v2.0/.well-known/openid-configuration", "discovery/v2.0/keys", "",
        "discovery/instance", "oauth2/v2.0/authorize", "oauth2/v2.0/devicecode",
    ]  # fmt: skip
    for _ in range(400):
        changed = dict(form)
        for _ in range(choose.randrange(3)):
            changed[choose.choice(list(form))] = choose.choice(
                ["", "\0", "x" * 9000, "é", "https://", "/.default", "//.default", at.tenant]
            )
        data = "&".join(f"{quote(k)}={quote(v)}" for k, v in changed.items()).encode()
        if choose.random() < 0.2:
            data = choose.randbytes(choose.randrange(200))
        target = "/" + quote(choose.choice(tenants), safe="%") + "/" + choose.choice(paths)
        headers = {"Content-Type": choose.choice(["application/x-www-form-urlencoded", "application/json", "x", ""])}
        reply = at.http.request(choose.choice(["POST", "POST", "GET"]), at.login_host, target, data, headers)
        assert reply.status in (200, 400, 401, 404, 405, 413, 415), f"{target} {data!r}: {reply}"


def test_blobs_with_any_byte_changed_do_not_restore(
    at: Place, tmp_path: Path, name: str, names: Callable[[], str]
) -> None:
    choose = random.Random(f"{SEED} blobs")
    at.ok("PUT", f"/secrets/{name}", {"value": "v", "tags": {"a": "b"}})
    blob = harness.unb64url(at.ok("POST", f"/secrets/{name}/backup")["value"])
    at.ok("DELETE", f"/secrets/{name}")
    at.ok("DELETE", f"/deletedsecrets/{name}")
    for at_byte in range(len(blob)):
        bad = bytearray(blob)
        bad[at_byte] ^= 1 << choose.randrange(8)
        reply = at.call("POST", "/secrets/restore", {"value": b64url(bytes(bad))})
        assert (reply.status, reply.error["code"]) == (400, "BadParameter"), f"byte {at_byte}: {reply}"
    assert at.call("GET", f"/secrets/{name}").status == 404
    at.ok("POST", "/secrets/restore", {"value": b64url(blob)})
