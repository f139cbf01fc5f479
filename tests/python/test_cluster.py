"""Three nodes as one service: what is acknowledged on one is true on all, at once."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.keyvault.keys.crypto import SignatureAlgorithm

from conftest import clients_of
from harness import SEED, Cluster, Place, Process, eventually, free_port, must, run


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> list[Place]:
    return cluster.places()


def test_a_write_is_read_on_every_other_node_at_once(places: list[Place], names: Callable[[], str]) -> None:
    choose = random.Random(SEED)
    name = names()
    for i in range(60):
        writer, reader = choose.sample(places, 2)
        written = writer.ok("PUT", f"/secrets/{name}", {"value": str(i)})
        read = reader.ok("GET", f"/secrets/{name}")
        assert (read["value"], read["id"]) == (str(i), written["id"])


def test_each_step_of_a_life_is_seen_everywhere(places: list[Place], names: Callable[[], str]) -> None:
    for first, second in ((0, 1), (1, 2), (2, 0)):
        here, there = clients_of(places[first]).secrets, clients_of(places[second]).secrets
        name = names()
        stored = here.set_secret(name, "v")
        assert there.get_secret(name).id == stored.id
        there.update_secret_properties(name, tags={"k": "v"})
        assert here.get_secret(name).properties.tags == {"k": "v"}
        assert name in {item.name for item in there.list_properties_of_secrets()}
        here.begin_delete_secret(name)
        with pytest.raises(ResourceNotFoundError):
            there.get_secret(name)
        assert there.get_deleted_secret(name).id == stored.id
        there.begin_recover_deleted_secret(name)
        assert here.get_secret(name).value == "v"
        there.begin_delete_secret(name)
        here.purge_deleted_secret(name)
        with pytest.raises(ResourceNotFoundError):
            there.get_deleted_secret(name)


def test_a_disabled_key_signs_nowhere(places: list[Place], names: Callable[[], str]) -> None:
    """Once the disabling is acknowledged, no node signs any more, however warm its caches are."""
    choose = random.Random(SEED)
    name = names()
    version = clients_of(places[0]).keys.create_ec_key(name).properties.version
    signers = [clients_of(place).keys.get_cryptography_client(name, key_version=version) for place in places]
    for _ in range(15):
        for signer in signers:
            assert signer.sign(SignatureAlgorithm.es256, b"d" * 32).signature
        changer = clients_of(choose.choice(places)).keys
        changer.update_key_properties(name, enabled=False)
        for signer in signers:
            with pytest.raises(HttpResponseError) as caught:
                signer.sign(SignatureAlgorithm.es256, b"d" * 32)
            assert caught.value.status_code == 403
        changer.update_key_properties(name, enabled=True)


def test_a_token_of_one_node_is_good_on_all(places: list[Place], names: Callable[[], str]) -> None:
    name = names()
    for place in places:
        token = place.token()
        for other in places:
            reply = other.call("PUT", f"/secrets/{name}", {"value": "v"}, token=token)
            assert reply.status == 200, reply


def test_a_key_made_on_one_node_works_on_all(places: list[Place], names: Callable[[], str]) -> None:
    name = names()
    places[0].ok("POST", f"/keys/{name}/create", {"kty": "RSA"})
    sealed = places[1].ok("POST", f"/keys/{name}/encrypt", {"alg": "RSA-OAEP-256", "value": "c2FsdA"})["value"]
    for place in places:
        opened = place.ok("POST", f"/keys/{name}/decrypt", {"alg": "RSA-OAEP-256", "value": sealed})
        assert opened["value"] == "c2FsdA"


def test_a_backup_of_one_node_restores_on_another(places: list[Place], names: Callable[[], str]) -> None:
    name = names()
    places[0].ok("PUT", f"/secrets/{name}", {"value": "v"})
    blob = places[1].ok("POST", f"/secrets/{name}/backup")
    places[2].ok("DELETE", f"/secrets/{name}")
    places[0].ok("DELETE", f"/deletedsecrets/{name}")
    places[1].ok("POST", "/secrets/restore", blob)
    assert places[2].ok("GET", f"/secrets/{name}")["value"] == "v"


def test_writers_at_once_make_versions_of_their_own(places: list[Place], names: Callable[[], str]) -> None:
    """Every acknowledged value is one version, and all nodes agree on which is the newest."""
    name = names()
    barrier = threading.Barrier(12)

    def write(number: int) -> list[tuple[str, str]]:
        place = places[number % 3]
        barrier.wait(20)
        made = []
        for i in range(10):
            value = f"{number}-{i}"
            made.append((place.ok("PUT", f"/secrets/{name}", {"value": value})["id"], value))
        return made

    with ThreadPoolExecutor(12) as pool:
        acknowledged = dict(pair for pairs in pool.map(write, range(12)) for pair in pairs)
    assert len(acknowledged) == 120
    for place in places:
        listed = {item.id for item in clients_of(place).secrets.list_properties_of_secret_versions(name)}
        assert listed == set(acknowledged)
    newest = {place.ok("GET", f"/secrets/{name}")["id"] for place in places}
    assert len(newest) == 1


def test_of_deletes_at_once_one_is_done(places: list[Place], names: Callable[[], str]) -> None:
    """One answer is 200, the rest are 404."""
    for _ in range(10):
        name = names()
        places[0].ok("PUT", f"/secrets/{name}", {"value": "v"})
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda i: places[i % 3].call("DELETE", f"/secrets/{name}").status, range(6)))  # noqa: B023
        assert sorted(replies) == [200] + [404] * 5


def test_nodes_agree(cluster: Cluster, places: list[Place], names: Callable[[], str]) -> None:
    """Replicas that have applied the same entries have the same chain."""
    for place in places:
        place.ok("PUT", f"/secrets/{names()}", {"value": "v"})

    def agreed() -> bool:
        seen = [node.own_status() for node in cluster.nodes]
        return len({(s["applied"], s["chain"], s["leader"]) for s in seen}) == 1 and seen[0]["leader"] is not None

    eventually("equal applied index and chain", agreed)
    roles = sorted(node.own_status()["role"] for node in cluster.nodes)
    assert roles == ["follower", "follower", "leader"]
    members = cluster.nodes[1].own_status()["members"]
    assert [(m["id"], m["voter"]) for m in sorted(members, key=lambda m: m["id"])] == [(1, True), (2, True), (3, True)]


def test_status_is_readable_too(cluster: Cluster) -> None:
    for node in cluster.nodes:
        shown = run("cluster", "status", "--config", str(node.config))
        assert shown.code == 0, shown
        for other in cluster.nodes:
            assert other.name in shown.out


def test_a_second_init_is_refused(cluster: Cluster) -> None:
    again = run("cluster", "init", "--config", str(cluster.nodes[0].config))
    assert again.code != 0 and again.err.strip(), "a clear error"
    with pytest.raises(json.JSONDecodeError):
        json.loads(again.out)


def test_no_second_cluster_is_made_beside_the_first(cluster: Cluster, tmp_path: Path) -> None:
    """Its nodes would look like nodes of this one."""
    secrets, second = cluster.secrets, cluster.nodes[1]
    must("world", "certificate", "--secrets", str(secrets), "--out", str(tmp_path), "--node", "node4")
    config, port = tmp_path / "node4.toml", free_port()
    text = second.config.read_text().replace(str(second.data), str(tmp_path / "data"))
    text = text.replace(f"{secrets}/node2.", f"{tmp_path}/node4.").replace('"node2"', '"node4"').replace("id = 2", "id = 4")
    for name in ("api", "admin"):
        text = text.replace(f":{getattr(second, name)}", f":{free_port()}")
    listen = f'advertise = "127.0.0.1:{second.peer}"'
    text = text.replace(f'listen = "127.0.0.1:{second.peer}"\n{listen}', f'listen = "127.0.0.1:{port}"\n{listen}')
    config.write_text(text.replace(listen, f'advertise = "127.0.0.1:{port}"'))
    node = Process("node4", ["server", "--config", str(config)], tmp_path / "node4.log").start().wait_ready()
    try:
        made = run("cluster", "init", "--config", str(config))
        assert made.code == 1 and "belongs to a cluster already" in made.err, made
    finally:
        node.kill()


def test_health_and_metrics(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert node.admin_get("/healthz/live")[0] == 200
        assert node.admin_get("/healthz/ready")[0] == 200
        status, text = node.admin_get("/metrics")
        assert status == 200
        for metric in ("claviger_http_requests_total", "claviger_raft_applied_index", "claviger_raft_term"):
            assert metric in text
        assert 400 <= node.admin_get("/nothing")[0] < 500
