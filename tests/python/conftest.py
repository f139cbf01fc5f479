"""Fixtures: one dev server and one cluster for the whole run, SDK clients on them, and the servers' logs on failure."""

from __future__ import annotations

import itertools
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, TCPConnector
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity import ClientSecretCredential
from azure.identity.aio import ClientSecretCredential as AsyncClientSecretCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.aio import KeyClient as AsyncKeyClient
from azure.keyvault.secrets import SecretClient
from azure.keyvault.secrets.aio import SecretClient as AsyncSecretClient

import harness
from harness import Cluster, Dev, Place, Process

PLACES = ("dev", "node1", "node2", "node3")


def pytest_report_header() -> str:
    return f"CLAVIGER_TEST_SEED={harness.SEED} repeats the random choices of this run"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `place` runs against dev; one marked `everywhere` also against each node of the cluster."""
    if "place" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("everywhere") is not None
        metafunc.parametrize("place", PLACES if everywhere else PLACES[:1], indirect=True, scope="session")


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[_log_sizes] = {p.log: p.log.stat().st_size for p in Process.started}
    return (yield)


_log_sizes = pytest.StashKey[dict[Path, int]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report = yield
    if report.failed:
        sizes = item.stash.get(_log_sizes, {})
        for process in Process.started:
            state = "" if process.alive else f", ended with {process.exit_code}"
            with process.log.open("rb") as log:
                log.seek(sizes.get(process.log, 0))
                text = log.read().decode(errors="replace")
            report.sections.append((f"{process.name} wrote meanwhile{state}", "\n".join(text.splitlines()[-60:])))
    return report


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One dev server with two vaults."""
    with harness.dev_server(tmp_path_factory.mktemp("dev") / "data", ("demo", "second")) as server:
        yield server


@pytest.fixture(scope="session")
def dev_place(dev: Dev) -> Place:
    return dev.place()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes of one cluster."""
    with harness.cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest) -> Place:
    """Where a test runs."""
    if request.param == "dev":
        return request.getfixturevalue("dev_place")
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.places()[int(request.param.removeprefix("node")) - 1]


# --- clients ---------------------------------------------------------------------------------------------------------


class Clients:
    """SDK clients of one place, made once: the first request of each takes a challenge and a token."""

    def __init__(self, place: Place):
        self.credential = ClientSecretCredential(**place.credential_arguments())
        self.keys = KeyClient(place.url(), self.credential, **place.sdk())
        self.secrets = SecretClient(place.url(), self.credential, **place.sdk())


_clients: dict[str, Clients] = {}
_async_clients: dict[str, tuple[ClientSession, AsyncClientSecretCredential, AsyncKeyClient, AsyncSecretClient]] = {}


def clients_of(place: Place) -> Clients:
    if place.name not in _clients:
        _clients[place.name] = Clients(place)
    return _clients[place.name]


@pytest.fixture
def keys(place: Place) -> KeyClient:
    return clients_of(place).keys


@pytest.fixture
def secrets(place: Place) -> SecretClient:
    return clients_of(place).secrets


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _close_async() -> AsyncIterator[None]:
    yield
    for clients in _async_clients.values():
        for client in reversed(clients):
            await client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def akeys(place: Place, _close_async: None) -> AsyncKeyClient:
    return _async(place)[2]


@pytest_asyncio.fixture(loop_scope="session")
async def asecrets(place: Place, _close_async: None) -> AsyncSecretClient:
    return _async(place)[3]


def _async(place: Place) -> tuple[ClientSession, AsyncClientSecretCredential, AsyncKeyClient, AsyncSecretClient]:
    if place.name not in _async_clients:
        # One TLS context for all requests. Given the name of a CA file, the SDK would read the system's whole CA store
        # for each request and spend half a minute on it.
        trust = TCPConnector(ssl=ssl.create_default_context(cafile=place.ca))
        session = ClientSession(connector=trust, auto_decompress=False)
        arguments = place.sdk() | {"transport": AioHttpTransport(session=session, session_owner=False)}
        credential = AsyncClientSecretCredential(**{**place.credential_arguments(), **arguments})
        keys = AsyncKeyClient(place.url(), credential, **arguments)
        secrets = AsyncSecretClient(place.url(), credential, **arguments)
        _async_clients[place.name] = (session, credential, keys, secrets)
    return _async_clients[place.name]


_numbers = itertools.count(1)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that nothing else has, with the test's own in it."""
    return make_name(request.node.originalname)


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Callable[[], str]:
    """A maker of such names."""
    return lambda: make_name(request.node.originalname)


def make_name(text: str) -> str:
    words = re.sub(r"[^0-9a-zA-Z]+", "-", text.removeprefix("test_"))
    return f"{words[:60]}-{next(_numbers)}-{random.randrange(1 << 32):08x}"
