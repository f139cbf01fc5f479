"""Stops a node in the middle of a request, takes the authority away through another node, lets it go on, and looks at what
it answers. run.sh builds a server that can be stopped so (feature `pause-points`).

Whatever was asked before the revocation may be answered by the state of then, and such an answer says so: its
`x-claviger-index` is below the revocation's. Under a lease there is more: what is stopped before the gate's last look is never
answered by the old state, for the lease is over by then. (A read that asked the leader is as old as the leader's answer.)
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import harness
from harness import Cluster, Node, Place, Reply, eventually

POINTS = ("begun", "evaluated", "confirmed", "rendered")
CONFIRMED = ("confirmed", "rendered")  # after the gate's last look
OPERATIONS = ("get", "sign", "list")
DIGEST = harness.b64url(b"\x5a" * 32)
LEADER_EVERY = 5  # so often the leader is the one to be stopped


class Subject:
    """What is used and revoked: one version of a secret or a key."""

    def __init__(self, place: Place, operation: str):
        self.operation = operation
        if operation == "sign":
            made = place.ok("POST", "/keys/paused/create", {"kty": "EC"})["key"]["kid"]
        else:
            made = place.ok("PUT", f"/secrets/paused-{operation}", {"value": "v"})["id"]
        self.path = "/" + made.split("/", 3)[3]

    def use(self, place: Place) -> Reply:
        """On a connection of its own, without repetition."""
        method, path, body = "GET", self.path, None
        if self.operation == "sign":
            method, path, body = "POST", f"{self.path}/sign", {"alg": "ES256", "value": DIGEST}
        elif self.operation == "list":
            path = f"{self.path.rpartition('/')[0]}/versions"
        headers = {"Authorization": f"Bearer {place.token()}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        client = place.new_http(30, repeat=False)
        try:
            return client.request(method, place.host(), f"{path}?api-version={harness.API_VERSION}", data, headers)
        finally:
            client.close()

    def shows_authority(self, reply: Reply) -> bool:
        """Whether an answer is one that only the old authority gives."""
        if self.operation == "list":
            # There may be one for each mode.
            found = reply.json.get("value", []) if reply.status == 200 else []
            return any(v["attributes"]["enabled"] for v in found if v["id"].endswith(self.path))
        return reply.status == 200

    def set_enabled(self, place: Place, enabled: bool) -> Reply:
        return place.call("PATCH", self.path, {"attributes": {"enabled": enabled}})


def is_stopped(node: Node) -> bool:
    state = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def leader_of(cluster: Cluster) -> Node:
    return eventually("a leader", lambda: next((node for node in cluster.nodes if node.leads()), None))


def ways(node: Node) -> Counter[str]:
    """Reads of a node by the way they took through the gate, and answers that were made again."""
    metrics = node.metrics()
    found = {name.split('"')[1]: int(count) for name, count in metrics.items() if name.startswith("claviger_reads_total")}
    return Counter({**found, "again": int(metrics["claviger_validate_failures_total"])})


def once(
    cluster: Cluster, mode: str, subject: Subject, point: str, victim: Node, other: Node
) -> tuple[str, list[str]]:
    """One repetition: what became of the request, and what was wrong."""
    there, here = cluster.place(victim), cluster.place(other)
    eventually("it is enabled", lambda: subject.set_enabled(here, True).status == 200)
    seen: list[Any] = []
    try:
        eventually("it can be used", lambda: subject.shows_authority(seen.append(subject.use(there)) or seen[-1]))
    except AssertionError as error:
        raise AssertionError(f"{error}; the last of {len(seen)} answers was {seen[-1:]}") from error
    if mode == "lease":
        eventually("a lease", victim.has_lease)
    before = int(here.call("GET", f"{subject.path.rpartition('/')[0]}/versions").header("x-claviger-index") or 0)

    taken = ways(victim)
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(subject.use(there))
        except Exception as error:  # any: it is part of the outcome
            answers.append(error)

    status, _ = victim.admin_get(f"/pause/{point}")
    assert status == 204, "this server has no points to be stopped at: it needs the feature `pause-points`"
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    eventually("it is stopped", lambda: is_stopped(victim))
    try:
        assert not answers, "stopped, and yet it answered"
        # Waits for the end of the victim's lease, and for another leader if it led.
        revoked = eventually("the revocation", lambda: acknowledged(subject, here))
    finally:
        os.kill(victim.process.pid, signal.SIGCONT)
    asking.join(40)
    assert answers, "no answer after it went on"
    answer, wrong = answers[0], []
    # Nothing else asks this node.
    way = ", ".join(ways(victim) - taken)
    if isinstance(answer, Exception):
        outcome = "no answer"
    elif not subject.shows_authority(answer):
        outcome = f"refused ({answer.status})" if answer.status != 200 else "the new state"
    else:
        outcome = f"the old state, {way}"
        index = int(answer.header("x-claviger-index") or 0)
        if not 0 < index < revoked:
            wrong.append(f"index {index} of the answer is not below {revoked} of the revocation")
        # Asked before the revocation, and evaluated before it.
        if point not in CONFIRMED and way != "round":
            wrong.append(f"answered by the state at {index} although the gate looked after the revocation at {revoked}")
    if revoked <= before:
        wrong.append(f"the revocation at {revoked} says that it was decided at or before {before}")
    late = subject.use(there)
    if subject.shows_authority(late):
        wrong.append(f"used after the revocation was acknowledged: {late}")
    return outcome, wrong


def acknowledged(subject: Subject, place: Place) -> int:
    """The index of the revocation, once it is acknowledged; 0 before."""
    reply = subject.set_enabled(place, False)
    return int(reply.header("x-claviger-index") or 0) if reply.status == 200 else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--modes", default="lease,read_index")
    arguments = parser.parse_args()
    started, found, wrong = time.monotonic(), {}, []
    with tempfile.TemporaryDirectory() as directory, harness.cluster(Path(directory)) as cluster:
        for mode in arguments.modes.split(","):
            harness.must("cluster", "read-mode", "--config", str(cluster.nodes[0].config), mode)
            for operation in OPERATIONS:
                subject = Subject(cluster.places()[0], operation)
                for point in POINTS:
                    seen: Counter[str] = Counter()
                    for repetition in range(arguments.repetitions):
                        leader = leader_of(cluster)
                        followers = [node for node in cluster.nodes if node is not leader]
                        victim = leader if repetition % LEADER_EVERY == 0 else followers[repetition % 2]
                        other = next(node for node in followers if node is not victim)
                        outcome, faults = once(cluster, mode, subject, point, victim, other)
                        seen[outcome] += 1
                        wrong += [f"{mode}, {operation}, {point}, repetition {repetition}: {fault}" for fault in faults]
                    found[f"{mode} {operation} {point}"] = dict(seen)
                    print(f"pause: {mode:<10} {operation:<5} {point:<10} {dict(seen)}", flush=True)
    # Answers by the old state are right after the gate's last look; were there none, nothing was tried.
    tried = any("old state" in outcome for case, seen in found.items() if case.endswith(CONFIRMED) for outcome in seen)
    if not tried:
        wrong.append("no request was stopped between the gate's last look and its answer")
    for text in wrong:
        print(f"pause: WRONG: {text}")
    print(json.dumps({"ok": not wrong, "seconds": round(time.monotonic() - started), "wrong": len(wrong), **found}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
