"""What SDKs do when an answer does not come: which attempts they repeat, under which id, and what becomes of it.

A proxy that ends TLS stands before three nodes. It treats a call of an SDK as it is told, once: answers 503 by itself,
passes it on and closes instead of answering, or passes it on and answers 504. Attempts of one call go to different nodes.
docs/retries.md has the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import itertools
import json
import shutil
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from aiohttp import ClientSession, TCPConnector
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity import ClientSecretCredential
from azure.identity.aio import ClientSecretCredential as AsyncClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets.aio import SecretClient as AsyncSecretClient

import harness
from harness import ROOT, Cluster, Connector, Place

# Through a proxy, or under aiohttp, a lost answer may be called a request that could not be sent.
LOST = (ServiceResponseError, ServiceRequestError)
FAULTS = ("busy", "lost", "gateway")
HOP_BY_HOP = ("connection", "content-length", "transfer-encoding", "date", "server")


@dataclass(frozen=True)
class Attempt:
    """A call that arrived with a token."""

    method: str
    path: str
    client_id: str | None


class Proxy:
    """Ends TLS, and does to one call what it is told."""

    def __init__(self, cluster: Cluster):
        self.attempts: list[Attempt] = []
        self.fault: str | None = None
        self.nodes = [place.new_http(20, repeat=False) for place in cluster.places()]
        self.turn = itertools.count()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cluster.secrets / "api.pem", cluster.secrets / "api.key")
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.proxy, self.server.tls = self, tls
        threading.Thread(target=self.server.serve_forever, daemon=True, name="proxy").start()
        self.connector = Connector(self.server.server_address)

    def strike(self, fault: str) -> None:
        """The next call with a token is treated so."""
        self.attempts.clear()
        self.fault = fault

    def close(self) -> None:
        self.connector.close()
        self.server.shutdown()
        self.server.server_close()


class Server(http.server.ThreadingHTTPServer):
    proxy: Proxy
    tls: ssl.SSLContext

    def finish_request(self, request: socket.socket, address: tuple[str, int]) -> None:
        # In the thread of the connection, so that a slow greeting holds up no other. Clients that hang up are no news.
        with contextlib.suppress(OSError):
            super().finish_request(self.tls.wrap_socket(request, server_side=True), address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def answer(self) -> None:
        proxy, fault = self.server.proxy, None
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if (self.headers.get("authorization") or "").startswith("Bearer "):
            path = self.path.partition("?")[0]
            proxy.attempts.append(Attempt(self.command, path, self.headers.get("x-ms-client-request-id")))
            fault, proxy.fault = proxy.fault, None
        if fault == "busy":
            self.reply(503, [("retry-after", "1")], b"")
            return
        node = proxy.nodes[next(proxy.turn) % len(proxy.nodes)]
        reply = node.request(self.command, self.headers["host"], self.path, body, dict(self.headers))
        if fault == "lost":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "gateway":
            self.reply(504, [], b"")
        else:
            self.reply(reply.status, [h for h in reply.headers if h[0].lower() not in HOP_BY_HOP], reply.body)

    def reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("content-length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    do_GET = do_PUT = do_POST = answer


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    made = Proxy(cluster)
    yield made
    made.close()


@pytest.fixture(scope="module")
def through(cluster: Cluster, proxy: Proxy) -> Place:
    """The service behind the proxy."""
    return dataclasses.replace(
        cluster.places()[0], name="retries", proxy=proxy.connector.url, address=None, _http=None, _session=None
    )


def judge(proxy: Proxy, cluster: Cluster, method: str, path: str, *, repeated: bool) -> None:
    """The attempts were these, under one id, and made one version."""
    attempts = [attempt for attempt in proxy.attempts if attempt.path == path]
    assert [attempt.method for attempt in attempts] == [method] * (2 if repeated else 1)
    ids = {attempt.client_id for attempt in attempts}
    assert len(ids) == 1 and None not in ids, f"one id in all attempts: {attempts}"
    versions = cluster.places()[0].ok("GET", f"{path.removesuffix('/create')}/versions")["value"]
    assert len(versions) == 1, f"{len(versions)} versions: it was carried out twice"


@pytest.mark.parametrize("fault", FAULTS)
def test_python(cluster: Cluster, proxy: Proxy, through: Place, names: Callable[[], str], fault: str) -> None:
    credential = ClientSecretCredential(**through.credential_arguments())
    secrets = SecretClient(through.url(), credential, **through.sdk())
    keys = KeyClient(through.url(), credential, **through.sdk())
    secrets.set_secret(names(), "the first call of each client is answered with a challenge")
    keys.create_ec_key(names())

    secret, key = names(), names()
    proxy.strike(fault)
    assert secrets.set_secret(secret, "v").value == "v"
    judge(proxy, cluster, "PUT", f"/secrets/{secret}", repeated=True)
    proxy.strike(fault)
    if fault == "lost":
        # A POST is repeated only when something was answered: the program hears of it, and it was carried out once.
        with pytest.raises(LOST):
            keys.create_ec_key(key)
    else:
        assert keys.create_ec_key(key).name == key
    judge(proxy, cluster, "POST", f"/keys/{key}/create", repeated=fault != "lost")


def test_a_program_that_repeats_under_its_own_id(
    cluster: Cluster, proxy: Proxy, through: Place, names: Callable[[], str]
) -> None:
    secrets = SecretClient(
        through.url(), ClientSecretCredential(**through.credential_arguments()), **through.sdk()
    )
    secret, own = names(), str(uuid.uuid4())
    proxy.attempts.clear()
    first = secrets.set_secret(secret, "v", request_id=own)
    assert secrets.set_secret(secret, "v", request_id=own).id == first.id
    judge(proxy, cluster, "PUT", f"/secrets/{secret}", repeated=True)


@pytest.mark.parametrize("fault", FAULTS)
async def test_async_python(
    cluster: Cluster, proxy: Proxy, through: Place, names: Callable[[], str], fault: str
) -> None:
    trust = TCPConnector(ssl=ssl.create_default_context(cafile=through.ca))
    async with ClientSession(connector=trust, auto_decompress=False) as session:
        arguments = through.sdk() | {"transport": AioHttpTransport(session=session, session_owner=False)}
        credential = AsyncClientSecretCredential(**{**through.credential_arguments(), **arguments})
        secrets = AsyncSecretClient(through.url(), credential, **arguments)
        keys = AsyncKeyClient(through.url(), credential, **arguments)
        await secrets.set_secret(names(), "the first call of each client is answered with a challenge")
        await keys.create_ec_key(names())

        secret, key = names(), names()
        proxy.strike(fault)
        assert (await secrets.set_secret(secret, "v")).value == "v"
        judge(proxy, cluster, "PUT", f"/secrets/{secret}", repeated=True)
        proxy.strike(fault)
        if fault == "lost":
            with pytest.raises(LOST):
                await keys.create_ec_key(key)
        else:
            assert (await keys.create_ec_key(key)).name == key
        judge(proxy, cluster, "POST", f"/keys/{key}/create", repeated=fault != "lost")


@pytest.mark.parametrize("fault", FAULTS)
def test_javascript(cluster: Cluster, proxy: Proxy, through: Place, names: Callable[[], str], fault: str) -> None:
    if not shutil.which("node"):
        pytest.skip("there is no Node.js here")
    subprocess.run([ROOT / "tests/js/setup.sh"], check=True, capture_output=True, timeout=100)
    program = ["node", str(ROOT / "tests/js/programs/one-call.js")]
    secret, key = names(), names()
    for kind, name, method, path in (
        ("secret", secret, "PUT", f"/secrets/{secret}"),
        ("key", key, "POST", f"/keys/{key}/create"),
    ):
        with subprocess.Popen(
            [*program, kind, name], env=environment(through), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            try:
                assert child.stdout and child.stdout.readline() == "ready\n"
                proxy.strike(fault)
                out, _ = child.communicate("go\n", timeout=60)
            finally:
                child.kill()
        assert child.returncode == 0 and json.loads(out)["name"] == name
        judge(proxy, cluster, method, path, repeated=True)


def environment(place: Place) -> dict[str, str]:
    """What a program needs to reach the service behind the proxy."""
    return {
        **harness.clean_environment(),
        "HTTPS_PROXY": place.proxy or "",
        "NODE_EXTRA_CA_CERTS": place.ca,
        "VAULT_URL": place.url(),
        "TOKEN": place.token(),
    }
