"""kill -9 under a stream of writes: every acknowledged write is there afterwards, on every node.

CLAVIGER_TEST_SEED repeats the random choices of a run; pytest's head line prints them.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import harness
from harness import API_VERSION, SEED, Cluster, Node, Place, eventually, must

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(150)]

WRITERS = 4
READERS = 2
# So many acknowledged writes between two faults.
BETWEEN = 60


@dataclass
class Writers:
    """Threads that write secrets through random nodes, and what was acknowledged to them: version id -> value."""

    cluster: Cluster
    acknowledged: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    unknown: int = 0
    # The register: the last value acknowledged, and what readers found wrong.
    register: int = 0
    perhaps: set[int] = field(default_factory=set)
    reads: int = 0
    wrong: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Writers:
        # One token for all: no writer waits for a token while nodes are gone.
        first = self.cluster.places()[0]
        self.token = first.token()
        first.ok("PUT", "/secrets/register", {"value": "0"})
        self._threads = [threading.Thread(target=self._write, args=(i,), daemon=True) for i in range(WRITERS)]
        self._threads.append(threading.Thread(target=self._count_up, daemon=True))
        self._threads += [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(READERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"

    def _write(self, number: int) -> None:
        choose = random.Random(f"{SEED} writer {number}")
        # No repetition: the outcome of a cut connection is unknown, and that is what this test is about.
        clients = [(place, place.new_http(8, repeat=False)) for place in self.cluster.places()]
        count = 0
        while not self._stop.is_set():
            count += 1
            place, client = choose.choice(clients)
            # A few names, so that versions pile up, and names of their own, so that names do.
            name = f"shared-{choose.randrange(5)}" if choose.random() < 0.5 else f"own-{number}-{count}"
            value = f"{number}-{count}-{choose.randrange(1 << 60):x}"
            try:
                written = self._call(place, client, "PUT", f"/secrets/{name}", {"value": value})
                if written is not None:
                    with self._lock:
                        self.acknowledged[written["id"]] = value
                    if name.startswith("own") and choose.random() < 0.1:
                        # From here on it need not be live any more, whether this is acknowledged or not.
                        with self._lock:
                            self.acknowledged.pop(written["id"])
                        if self._call(place, client, "DELETE", f"/secrets/{name}") is not None:
                            with self._lock:
                                self.deleted.add(name)
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.unknown += 1
                # The node may be gone for seconds; asking it without a pause would only burn the machine.
                self._stop.wait(0.05)

    def _count_up(self) -> None:
        """One writer gives one secret the values 1, 2, 3, ... through random nodes."""
        choose = random.Random(f"{SEED} register")
        clients = [(place, place.new_http(8, repeat=False)) for place in self.cluster.places()]
        value = 0
        while not self._stop.is_set():
            value += 1
            place, client = choose.choice(clients)
            try:
                if self._call(place, client, "PUT", "/secrets/register", {"value": str(value)}) is not None:
                    self.register = value
                    continue
            except (OSError, http.client.HTTPException):
                self._stop.wait(0.05)
            # It may still happen, at any time, and so put the register back.
            self.perhaps.add(value)

    def _read(self, number: int) -> None:
        """Whatever was acknowledged before a read began, the read has seen, on whichever node; and none goes back."""
        choose = random.Random(f"{SEED} reader {number}")
        clients = [(place, place.new_http(8, repeat=False)) for place in self.cluster.places()]
        seen = 0
        while not self._stop.is_set():
            place, client = choose.choice(clients)
            least = max(self.register, seen)
            try:
                got = self._call(place, client, "GET", "/secrets/register")
            except (OSError, http.client.HTTPException):
                self._stop.wait(0.05)
                continue
            if got is None:
                continue
            value = int(got["value"])
            if value < least and value not in self.perhaps:
                self.wrong.append(f"{place.name} said {value} when {least} was known")
            if value not in self.perhaps:
                seen = value
            self.reads += 1
            self._stop.wait(0.005)

    def _call(self, place: Place, client: harness.Https, method: str, path: str, body: object = None) -> dict | None:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        reply = client.request(method, place.host(), f"{path}?api-version={API_VERSION}", data, headers)
        if reply.status == 200:
            return reply.json
        # A node that lost its leader may say so; nothing else is an answer to this request.
        assert reply.status == 503, reply
        self._stop.wait(0.05)
        return None

    def count(self) -> int:
        with self._lock:
            return len(self.acknowledged)

    def await_more(self, what: str) -> None:
        """Waits until writes have been acknowledged since now, and so the cluster is alive."""
        target = self.count() + BETWEEN
        eventually(f"{BETWEEN} more writes are acknowledged {what}", lambda: self.count() >= target)
        assert all(thread.is_alive() for thread in self._threads), "a writer ended"


def restart(node: Node) -> None:
    node.start()
    eventually(f"{node.process.name} is ready again", node.ready)


def agree(nodes: list[Node]) -> None:
    """All nodes have applied the same entries and have the same state."""

    def equal() -> bool:
        states = [node.own_status() for node in nodes]
        assert all(state["stopped"] is None for state in states), states
        return len({(state["applied"], state["chain"]) for state in states}) == 1

    eventually("equal applied index and chain on all nodes", equal)


def check_everything(cluster: Cluster, writers: Writers) -> None:
    """Every acknowledged write, on every node."""

    def check(place: Place, pairs: list[tuple[str, str]]) -> None:
        for identifier, value in pairs:
            path = identifier.split("/", 3)[3]
            reply = place.call("GET", f"/{path}", token=writers.token)
            assert reply.status == 200, f"lost on {place.name}: {identifier}: {reply}"
            assert reply.json["value"] == value, f"changed on {place.name}: {identifier}"

    pairs = list(writers.acknowledged.items())
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, place, pairs[i::2]) for place in cluster.places() for i in range(2)]:
            done.result(60)
    for place in cluster.places():
        for name in writers.deleted:
            assert place.call("GET", f"/secrets/{name}", token=writers.token).status == 404, f"{name} is back"
            assert place.call("GET", f"/deletedsecrets/{name}", token=writers.token).status == 200, f"{name} was lost"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    with harness.cluster(tmp_path) as cluster:
        yield cluster


def test_kill_each_node_in_turn_and_then_all(nodes: Cluster) -> None:
    started = time.monotonic()
    choose = random.Random(f"{SEED} faults")
    with Writers(nodes) as writers:
        writers.await_more("before any fault")
        for node in choose.sample(nodes.nodes, 3):
            node.process.kill()
            writers.await_more(f"without {node.process.name}")
            restart(node)
            writers.await_more(f"with {node.process.name} back")
        # The leader, for certain, and twice: the second time while the first one is catching up.
        for _ in range(2):
            leader = next(s["leader"] for node in nodes.nodes if (s := node.own_status())["leader"])
            node = nodes.nodes[leader - 1]
            node.process.kill()
            writers.await_more(f"without the leader, {node.process.name}")
            node.start()
        nodes.wait_ready()

        # All at once, as a power cut would.
        for _ in range(2):
            for node in nodes.nodes:
                node.process.signal(signal.SIGKILL)
            for node in nodes.nodes:
                node.process.kill()
            for node in choose.sample(nodes.nodes, 3):
                node.process.start()
            nodes.wait_ready()
            writers.await_more("after all three were killed")
    print(
        f"{len(writers.acknowledged)} acknowledged, {len(writers.deleted)} deleted, {writers.unknown} unknown, "
        f"{writers.reads} reads, register {writers.register}"
    )
    assert writers.wrong == [], "a stale read"
    assert writers.reads > 200 and writers.register > 50
    agree(nodes.nodes)
    check_everything(nodes, writers)
    assert time.monotonic() - started < 90


@pytest.mark.parametrize("left", ["leader", "follower"])
def test_no_quorum_no_acknowledgement(nodes: Cluster, left: str) -> None:
    """One node of three acknowledges nothing and serves nothing stale; with a second one all goes on."""
    leader = nodes.nodes[0].own_status()["leader"]
    first = next(node for node in nodes.nodes if (node.number == leader) == (left == "leader"))
    second, third = (node for node in nodes.nodes if node is not first)
    place = nodes.place(first)
    place.ok("PUT", "/secrets/before", {"value": "v"})
    second.process.kill()
    third.process.kill()
    client = place.new_http(20, repeat=False)
    headers = {"Authorization": f"Bearer {place.token()}", "Content-Type": "application/json"}

    def read() -> harness.Reply:
        return client.request("GET", place.host(), f"/secrets/before?api-version={API_VERSION}", None, headers)

    # What it knows is right for as long as its lease lasts, for nobody can have changed it; a second, by default.
    lasts = time.monotonic() + 3
    while (reply := read()).status == 200 and time.monotonic() < lasts:
        pass
    assert (reply.status, reply.header("Retry-After")) == (503, "1"), reply
    assert (reply := read()).status == 503, reply
    body = b'{"value": "perhaps"}'
    write = client.request("PUT", place.host(), f"/secrets/during?api-version={API_VERSION}", body, headers)
    # It may be in the log of this node and be committed later: then a client must not be told to repeat it.
    assert (write.status, write.error["code"]) == (503, "ServiceUnavailable"), write
    eventually("the node says that it is not ready", lambda: first.admin_get("/healthz/ready")[0] == 503)
    assert first.admin_get("/healthz/live")[0] == 200
    restart(second)
    eventually("writes again", lambda: place.call("PUT", "/secrets/after", {"value": "v"}).status == 200)
    assert place.ok("GET", "/secrets/before")["value"] == "v"
    versions = place.ok("GET", "/secrets/during/versions")["value"]
    assert len(versions) <= 1, "done once, or not at all"


def test_a_node_that_was_away_for_long_gets_a_snapshot(tmp_path: Path) -> None:
    settings = "[raft]\nsnapshot_entries = 100\nkeep_entries = 20\n"
    with harness.cluster(tmp_path, settings) as cluster:
        first, second, third = cluster.nodes
        here = cluster.place(first)
        for i in range(30):
            here.ok("PUT", f"/secrets/early-{i}", {"value": str(i)})
        here.ok("POST", "/keys/early/create", {"kty": "EC"})
        at = third.own_status()["applied"]
        assert third.process.stop() == 0
        for i in range(400):
            here.ok("PUT", f"/secrets/late-{i % 40}", {"value": str(i)})
        here.ok("DELETE", "/secrets/early-3")
        here.ok("DELETE", "/secrets/early-4")
        here.ok("DELETE", "/deletedsecrets/early-4")
        # The entries that it would need are gone, so it can only be a snapshot.
        for node in (first, second):
            eventually("the log was compacted", lambda node=node: node.own_status()["purged"] > at)
        third.start()
        eventually("it is ready", third.ready)
        there = cluster.place(third)
        assert there.ok("GET", "/secrets/late-39")["value"] == "399"
        assert there.ok("GET", "/secrets/early-29")["value"] == "29"
        versions = there.ok("GET", "/secrets/late-0/versions")["value"]
        assert len(versions) == 10
        assert there.call("GET", "/secrets/early-3").status == 404
        assert there.ok("GET", "/deletedsecrets/early-3")
        assert there.call("GET", "/deletedsecrets/early-4").status == 404
        assert there.ok("POST", "/keys/early/sign", {"alg": "ES256", "value": "A" * 43})["value"]
        agree(cluster.nodes)
        assert third.own_status()["snapshot"] > at
        # And it holds by itself: with the first one gone, the other two go on.
        first.process.kill()
        eventually("it takes writes", lambda: there.call("PUT", "/secrets/through-3", {"value": "v"}).status == 200)
        # A restart from a snapshot and a short log comes to the same state.
        second.process.kill()
        second.start()
        eventually("the second is back", second.ready)
        assert cluster.place(second).ok("GET", "/secrets/late-39")["value"] == "399"


def test_a_node_is_replaced(nodes: Cluster) -> None:
    first, second, third = nodes.nodes
    here = nodes.place(first)
    for i in range(50):
        here.ok("PUT", f"/secrets/s-{i}", {"value": str(i)})
    third.process.kill()
    shutil.rmtree(third.data)
    must("cluster", "remove", "--config", str(first.config), "--node", "3")
    here.ok("PUT", "/secrets/between", {"value": "two nodes"})
    # A new number, for under the old one it could vote twice; its name and certificate may be the old one's.
    fourth = Node(nodes, 4, "node3")
    nodes.nodes = [first, second, fourth]
    fourth.write_config([first, second, fourth])
    fourth.start()
    must("cluster", "join", "--config", str(fourth.config))
    eventually("the new node is ready", fourth.ready)
    there = nodes.place(fourth)
    assert there.ok("GET", "/secrets/s-49")["value"] == "49"
    there.ok("PUT", "/secrets/s-50", {"value": "50"})
    agree(nodes.nodes)
    members = {member["id"]: member["voter"] for member in first.own_status()["members"]}
    assert members == {1: True, 2: True, 4: True}
    # It counts: with an old one gone, there is still a majority.
    second.process.kill()
    eventually(
        "writes with the new majority", lambda: there.call("PUT", "/secrets/s-51", {"value": "51"}).status == 200
    )
    assert here.ok("GET", "/secrets/s-51")["value"] == "51"
