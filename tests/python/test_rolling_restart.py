"""A rolling restart behind a balancer costs no client a failed request."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import SignatureAlgorithm
from azure.keyvault.secrets import SecretClient
from harness import Balancer, Cluster, eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

# Clients without a pause, and some whose sessions lie idle for longer than a node drains.
BUSY, IDLE, PAUSE = 6, 2, 0.8
# Calls that each client ends between two restarts.
BETWEEN = {True: 3, False: 20}
# What the retry policy of the SDKs repeats.
REPEATED = (408, 429, 500, 502, 503, 504)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with harness.cluster(tmp_path_factory.mktemp("rolling")) as made:
        yield made


class Counting(RequestsTransport):
    """The SDK's own transport; it notes every attempt that the SDK has to repeat."""

    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        self.sent = 0
        self.repeated: list[str] = []

    def send(self, request: Any, **arguments: Any) -> Any:
        self.sent += 1
        started = time.monotonic()
        what = f"{request.method} {request.url.partition('?')[0]}"
        try:
            response = super().send(request, **arguments)
        except Exception as error:
            self.repeated.append(f"{what}: {error!r} after {time.monotonic() - started:.2f} s")
            raise
        if response.status_code in REPEATED:
            self.repeated.append(f"{what}: {response.status_code}")
        return response


class Client(threading.Thread):
    """A program with one long-lived session: it stores, reads back and signs, for as long as it may."""

    def __init__(self, number: int, cluster: Cluster, balancer: Balancer):
        super().__init__(daemon=True, name=f"client {number}")
        place = dataclasses.replace(
            cluster.places()[0], name=f"balanced-{number}", proxy=balancer.url, address=None, _http=None, _session=None
        )
        place.sdk()
        self.transport = Counting(session=place._session, session_owner=False, connection_verify=place.ca)
        arguments = place.sdk() | {"transport": self.transport}
        self.credential = ClientSecretCredential(**{**place.credential_arguments(), **arguments})
        self.secrets = SecretClient(place.url(), self.credential, **arguments)
        self.keys = KeyClient(place.url(), self.credential, **arguments)
        self.secret = self.key = f"rolling-{number}"
        self.idle = number >= BUSY
        self.done: Counter[str] = Counter()
        self.slowest = 0.0
        self.failures: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        version = self.keys.create_ec_key(self.key).properties.version
        signer = self.keys.get_cryptography_client(self.key, key_version=version)
        count = 0
        while not self.stopping.is_set():
            count += 1
            self.call("set", lambda: self.secrets.set_secret(self.secret, str(count)))
            read = self.call("get", lambda: self.secrets.get_secret(self.secret))
            if read is not None and read.value != str(count):
                self.failures.append(f"read {read.value} after {count} was stored")
            digest = hashlib.sha256(str(count).encode()).digest()
            self.call("sign", lambda: signer.sign(SignatureAlgorithm.es256, digest))

    def call(self, what: str, call: Any) -> Any:
        started = time.monotonic()
        try:
            answer = call()
        except Exception as error:
            self.failures.append(f"{what}: {error!r}")
            return None
        self.slowest = max(self.slowest, time.monotonic() - started)
        self.done[what] += 1
        if self.idle:
            self.stopping.wait(PAUSE)
        return answer


def test_a_rolling_restart_fails_no_request(nodes: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    balancer = Balancer(nodes.nodes)
    eventually("the balancer has found all nodes", lambda: len(balancer.ready()) == 3)
    clients = [Client(number, nodes, balancer) for number in range(BUSY + IDLE)]
    for client in clients:
        client.start()

    def work_on() -> None:
        """Until every client has ended so many more calls."""
        wanted = {client: client.done.total() + BETWEEN[client.idle] for client in clients}
        eventually("every client goes on", lambda: all(c.done.total() >= n or c.failures for c, n in wanted.items()))

    stops = []
    work_on()
    for node in nodes.nodes:
        started = time.monotonic()
        assert node.process.stop() == 0
        stops.append(round(time.monotonic() - started, 1))
        node.start()
        eventually("the balancer has found it again", lambda node=node: node in balancer.ready())
        work_on()
    for client in clients:
        client.stopping.set()
    for client in clients:
        client.join(30)
        assert not client.is_alive(), f"{client.name} hangs"
    balancer.close()

    done = sum((client.done for client in clients), Counter())
    repeated = [attempt for client in clients for attempt in client.transport.repeated]
    with capsys.disabled():
        print(
            f"\nrolling restart: {dict(done)}, {len(repeated)} attempts repeated, "
            f"slowest call {max(client.slowest for client in clients):.2f} s, stops took {stops} s"
        )
    assert not [failure for client in clients for failure in client.failures]
    assert not repeated
