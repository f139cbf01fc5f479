"""How reads are made: the modes, and what is said where an answer may be old."""

from __future__ import annotations

import base64
import subprocess

from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
from harness import Cluster, Node, Place, Reply, eventually, must

API = "api-version=7.4"


@pytest.fixture(scope="module")
def approver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An approver's key and, beside it, the certificate."""
    key = tmp_path_factory.mktemp("approver") / "alice.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", key.with_suffix(".pem")]
        + ["-days", "1", "-subj", "/CN=Alice"],
        check=True,
        capture_output=True,
    )
    return key


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, approver: Path) -> Iterator[Cluster]:
    settings = f'[emergency]\napprovers = ["{approver.with_suffix(".pem")}"]\n'
    with harness.cluster(tmp_path_factory.mktemp("reads"), settings) as made:
        yield made


def mode(node: Node, *arguments: str) -> None:
    must("cluster", "read-mode", "--config", str(node.config), *arguments)


def get(place: Place, path: str) -> Reply:
    headers = {"Authorization": f"Bearer {place.token()}"}
    return place.new_http(20, repeat=False).request("GET", place.host(), f"{path}?{API}", None, headers)


def reads(node: Node) -> dict[str, int]:
    lines = [line for line in node.admin_get("/metrics")[1].splitlines() if line.startswith("claviger_reads_total{")]
    return {line.split('"')[1]: int(line.rsplit(" ", 1)[1]) for line in lines}


def test_under_a_lease_every_node_answers_by_itself(nodes: Cluster) -> None:
    first = nodes.place(nodes.nodes[0])
    first.ok("PUT", "/secrets/mine", {"value": "v"})
    for node in nodes.nodes:
        eventually("a lease", node.has_lease)
        place, before = nodes.place(node), reads(node)
        for _ in range(20):
            reply = get(place, "/secrets/mine")
            assert reply.status == 200 and int(reply.header("x-claviger-index") or 0) > 0
            assert reply.header("x-claviger-staleness-ms") is None
        after = reads(node)
        own = sum(after.get(way, 0) - before.get(way, 0) for way in ("local", "held"))
        assert own >= 18, (before, after)
        assert node.own_status()["read_mode"] == "lease"


def test_a_mode_is_the_worlds_and_a_vault_may_be_stricter(nodes: Cluster) -> None:
    first, second, third = nodes.nodes
    place = nodes.place(second)
    place.ok("PUT", "/secrets/moded", {"value": "v"})
    vault = place.vaults[0]
    mode(first, "read_index", "--vault", vault)
    eventually("known there", lambda: get(place, "/secrets/moded").status == 200 and reads(second).get("round", 0) > 0)
    before = reads(second)
    for _ in range(10):
        assert get(place, "/secrets/moded").status == 200
    assert reads(second)["round"] - before["round"] >= 10
    # A vault cannot ask for less than its world.
    refused = harness.run("cluster", "read-mode", "--config", str(first.config), "bounded", "--bound-ms", "5000", "--vault", vault)
    assert refused.code != 0 and "stricter" in refused.err
    mode(first, "world", "--vault", vault)

    mode(third, "bounded", "--bound-ms", "2000")
    for node in nodes.nodes:
        there = nodes.place(node)

        def says_how_old(there: Place = there) -> bool:
            reply = get(there, "/secrets/moded")
            assert reply.status == 200
            return (age := reply.header("x-claviger-staleness-ms")) is not None and int(age) <= 2000

        eventually("an answer that says how old it is", says_how_old)
    mode(first, "lease")
    eventually("a lease", second.has_lease)
    assert get(place, "/secrets/moded").header("x-claviger-staleness-ms") is None


def test_a_repeated_request_acts_once(nodes: Cluster) -> None:
    place = nodes.place(nodes.nodes[0])

    def put(value: str, request_id: str, via: Node) -> Reply:
        there = nodes.place(via)
        headers = {
            "Authorization": f"Bearer {there.token()}",
            "Content-Type": "application/json",
            "x-ms-client-request-id": request_id,
        }
        body = b'{"value": "%s"}' % value.encode()
        return there.new_http(20, repeat=False).request("PUT", there.host(), f"/secrets/once?{API}", body, headers)

    first = put("a", "0b5f2a10-0000-4000-8000-000000000001", nodes.nodes[0]).json["id"]
    assert put("a", "0b5f2a10-0000-4000-8000-000000000001", nodes.nodes[1]).json["id"] == first
    assert put("b", "0b5f2a10-0000-4000-8000-000000000001", nodes.nodes[1]).json["id"] != first, "another request"
    assert put("a", "0b5f2a10-0000-4000-8000-000000000002", nodes.nodes[2]).json["id"] != first, "another id"
    assert len(place.ok("GET", "/secrets/once/versions")["value"]) == 3


def test_in_an_emergency_one_node_reads_on(nodes: Cluster, approver: Path) -> None:
    left, *others = nodes.nodes
    place = nodes.place(left)
    place.ok("PUT", "/secrets/needed", {"value": "now"})
    key = place.ok("POST", "/keys/needed/create", {"kty": "EC"})["key"]["kid"]
    place.token()
    config = ["--config", str(left.config)]
    for node in others:
        node.process.kill()
    eventually("reads end with the lease", lambda: get(place, "/secrets/needed").status == 503)

    statement = must("cluster", "emergency", *config, "--bound-ms", "600000", "--minutes", "5").out
    file, signature = approver.with_name("statement"), approver.with_name("signature")
    file.write_text(statement)

    def begin() -> harness.Finished:
        return harness.run(
            "cluster", "emergency", *config, "--statement", str(file), "--signature", str(signature)
        )

    signature.write_text(base64.b64encode(b"\x01" * 256).decode())
    refused = begin()
    assert refused.code != 0 and "no approver signed" in refused.err
    signed = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", approver, file], check=True, capture_output=True
    ).stdout
    signature.write_text(base64.b64encode(signed).decode())
    file.write_text(statement.replace("600000", "6000000"))
    refused = begin()
    assert refused.code != 0 and "no approver signed" in refused.err
    file.write_text(statement)
    assert begin().code == 0

    reply = get(place, "/secrets/needed")
    assert reply.status == 200 and reply.json["value"] == "now"
    assert 0 < int(reply.header("x-claviger-staleness-ms") or 0) < 600_000
    digest = base64.urlsafe_b64encode(b"\0" * 32).rstrip(b"=").decode()
    path = "/" + key.split("/", 3)[3]
    assert place.call("POST", f"{path}/sign", {"alg": "ES256", "value": digest}).status == 200
    headers = {"Authorization": f"Bearer {place.token()}", "Content-Type": "application/json"}
    write = place.new_http(20, repeat=False).request(
        "PUT", place.host(), f"/secrets/needed?{API}", b'{"value": "x"}', headers
    )
    assert write.status == 503
    assert left.own_status()["emergency"] is True

    assert must("cluster", "emergency", *config, "--end")
    assert get(place, "/secrets/needed").status == 503
    for node in others:
        node.start()
    nodes.wait_ready()
    assert get(place, "/secrets/needed").json["value"] in ("now", "x")
