"""How long a failure is felt: clients at a fixed rate on every node, one fault after another, and the gaps that they saw.

availability.sh starts this inside namespaces of its own. For each fault it is noted, on the nodes that were not struck,

- *back*: from the fault to the first acknowledgement of a write that was begun after it;
- *gap* of sets, gets and signatures: the longest time without a success of that kind, on any one node, from the fault until
  everything is well again.

Gets and signatures are of objects that nobody writes. The rate is fixed, whatever the answers take: a request that is due
while all connections of its kind are busy is left out, and there are so many that this happens in a stall only. Between
two faults everything must be well: every node ready, under a lease where there are leases, and every stream answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster import DOMAIN, PORT, Cluster, Node, check_namespaces, run_async
from https import Connection, NoAnswer, NotSent
from workload import API, DIGEST, Workload, b64

LINES = 24  # connections of one kind to one node
NAMES = 40  # secrets that one node's sets go to in turn
READ_TIMEOUT, WRITE_TIMEOUT = 6.0, 12.0
PAUSE = 3.0  # seconds for which a node is stopped or cut off
DOWN = 0.8  # seconds that a killed node stays away after everything has come back
PATIENCE = 30.0
WELL = 90.0  # a node that fell behind again and again is left without a lease for up to a minute
PARTS = 5  # times that each mode has its turn
WARM = 1.0  # a stream is well when it was answered within this time, and has been running so long
# Faults, and how many of each there are in a whole run.
FAULTS = {
    "leader killed": 50,
    "follower killed": 20,
    "leader stopped": 20,
    "follower stopped": 10,
    "follower paused": 12,
    "follower cut off": 12,
    "leader paused": 12,
    "leader cut off": 12,
}
SHORT = {"leader killed": 1, "follower killed": 1, "leader stopped": 1}


def say(text: str) -> None:
    print(f"availability: {text}", flush=True)


@dataclass
class Stream:
    """One kind of request to one node, at a fixed rate."""

    kind: str
    node: Node
    rate: float
    tls: Any
    headers: dict[str, str]
    host: str
    answered: list[tuple[float, float]] = field(default_factory=list)  # when begun, when answered well
    refused: int = 0
    left_out: int = 0
    idle: list[Connection] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        self.idle = [Connection((self.node.ip, PORT), self.tls) for _ in range(LINES)]
        loop, number = asyncio.get_running_loop(), 0
        due = loop.time() + random.random() / self.rate
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            # Late because this process was: not a burst, but on from now.
            due = max(due + 1 / self.rate, loop.time())
            if not self.idle:
                self.left_out += 1
                continue
            number += 1
            task = asyncio.create_task(self.one(number, self.idle.pop()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def one(self, number: int, connection: Connection) -> None:
        method, path, body, patience = "GET", "/secrets/fixed", None, READ_TIMEOUT
        if self.kind == "sign":
            method, path, body = "POST", "/keys/fixed/sign", {"alg": "ES256", "value": b64(DIGEST)}
        elif self.kind == "set":
            method, path = "PUT", f"/secrets/n{self.node.number}-{number % NAMES}"
            body, patience = {"value": base64.b64encode(os.urandom(24)).decode()}, WRITE_TIMEOUT
        begun = time.monotonic()
        try:
            data = None if body is None else json.dumps(body).encode()
            reply = await connection.request(method, self.host, f"{path}?{API}", self.headers, data, patience)
            if reply.status == 200:
                self.answered.append((begun, time.monotonic()))
            else:
                self.refused += 1
        except (NotSent, NoAnswer):
            self.refused += 1
        finally:
            # The last one used is the next: the others stay unconnected until a stall needs them.
            self.idle.append(connection)

    def gap(self, since: float, until: float) -> float:
        """The longest time without a success in this span; one that began before counts from there."""
        times = sorted(done for _, done in self.answered if done <= until)
        before = max((done for done in times if done <= since), default=since)
        marks = [before, *(done for done in times if done > since), until]
        return max(b - a for a, b in zip(marks, marks[1:], strict=False))


class Run:
    """All faults, in each way to read."""

    def __init__(self, arguments: argparse.Namespace, modes: list[str], faults: dict[str, int]):
        self.arguments, self.modes, self.faults = arguments, modes, faults
        directory = Path(arguments.directory)
        self.cluster = Cluster(directory, arguments.binary, arguments.nodes, arguments.settings, true_time=True)
        self.choose = random.Random(arguments.seed)
        self.streams: list[Stream] = []
        self.lags: list[float] = []
        self.mode = ""
        self.calm = 0.0  # since when all is well
        self.struck = dict.fromkeys(self.cluster.nodes, 0.0)
        self.found: dict[tuple[str, str], list[dict[str, float]]] = {(m, f): [] for m in modes for f in faults}
        self.normal: dict[tuple[str, str], list[float]] = {}

    async def go(self) -> None:
        await self.cluster.make()
        work = Workload(self.cluster, self.arguments.seed, 0, 0)
        await work.fetch_token()
        host = f"alpha.vault.{DOMAIN}:{PORT}"
        headers = {"Authorization": f"Bearer {work.token}", "Content-Type": "application/json"}
        first = Connection((self.cluster.nodes[0].ip, PORT), work.tls)
        for method, path, body in (
            ("PUT", "/secrets/fixed", {"value": "v"}),
            ("POST", "/keys/fixed/create", {"kty": "EC", "crv": "P-256"}),
        ):
            reply = await first.request(method, host, f"{path}?{API}", headers, json.dumps(body).encode())
            assert reply.status == 200, reply
        first.close()
        self.streams = [
            Stream(kind, node, self.arguments.rate, work.tls, headers, host)
            for node in self.cluster.nodes
            for kind in ("set", "get", "sign")
        ]
        running = [asyncio.create_task(stream.run()) for stream in self.streams]
        running.append(asyncio.create_task(self.watch_lag()))
        try:
            dealt = self.deal()
            for number, (mode, fault) in enumerate(dealt, 1):
                await self.read_as(mode)
                await self.well()
                # Anywhere between two heartbeats, two messages of the leader, two elections.
                await asyncio.sleep(self.choose.uniform(0.3, 1.0))
                seen = await self.strike(fault)
                self.found[mode, fault].append(seen)
                say(f"{number}/{len(dealt)} {mode}, {fault}: " + ", ".join(f"{k} {v:.3f}" for k, v in seen.items()))
            await self.well()
        finally:
            for task in running:
                task.cancel()
            await self.cluster.close()

    def deal(self) -> list[tuple[str, str]]:
        """Modes and faults, mixed, so that a busy minute of the machine does not hit one kind alone."""
        decks = []
        for mode in self.modes:
            deck = [(mode, fault) for fault, count in self.faults.items() for _ in range(count)]
            self.choose.shuffle(deck)
            decks.append(deck)
        parts = [deck[start::PARTS] for start in range(PARTS) for deck in decks]
        return [card for part in parts for card in part]

    async def read_as(self, mode: str) -> None:
        if mode == self.mode:
            return
        config = str(self.cluster.nodes[0].config)
        code, _, error = await run_async(self.cluster.binary, "cluster", "read-mode", "--config", config, mode)
        assert code == 0, error
        self.mode = mode

    async def watch_lag(self) -> None:
        """How late this process itself is: what it measures cannot be better."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.lags.append(time.monotonic() - before - 0.01)

    async def leader(self) -> Node | None:
        answers = await asyncio.gather(*(node.metrics() for node in self.cluster.nodes))
        leading = [
            (metrics["claviger_raft_term"], node)
            for node, metrics in zip(self.cluster.nodes, answers, strict=True)
            if metrics.get('claviger_raft_role{role="leader"}') == 1
        ]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None

    async def well(self) -> None:
        """Waits until everything is as it should be; starts a fresh record."""
        begun = time.monotonic()

        async def is_well() -> bool:
            answers = await asyncio.gather(*(node.metrics() for node in self.cluster.nodes))
            ready = await asyncio.gather(*(node.healthy("/healthz/ready") for node in self.cluster.nodes))
            leases = [metrics.get("claviger_lease_valid") for metrics in answers]
            modes = [metrics.get(f'claviger_mode{{mode="{self.mode}"}}') for metrics in answers]
            as_wanted = set(modes) == {1} and set(leases) == {1 if self.mode == "lease" else 0}
            since = max(begun, time.monotonic() - WARM)
            streams = all(stream.answered and stream.answered[-1][1] > since for stream in self.streams)
            return all(ready) and as_wanted and streams and await self.leader() is not None

        await self.cluster.until("all is well", is_well, WELL)
        self.calm = time.monotonic()
        for stream in self.streams:
            del stream.answered[:-1]
        self.lags.clear()

    async def strike(self, fault: str) -> dict[str, float]:
        """One fault, until everything is well again."""
        leader = await self.leader()
        assert leader is not None, "there is a leader when all is well"
        victim = leader
        if fault.startswith("follower"):
            # Whose turn it is: one that is struck again and again gets no lease for longer and longer.
            victim = min((node for node in self.cluster.nodes if node is not leader), key=lambda node: self.struck[node])
            self.struck[victim] = time.monotonic()
        survivors = [stream for stream in self.streams if stream.node is not victim]
        for stream in self.streams:
            took = self.normal.setdefault((self.mode, stream.kind), [])
            took.extend(done - begun for begun, done in stream.answered if begun > self.calm)
        struck = time.monotonic()
        back = await self.strikes()[fault.partition(" ")[2]](victim, survivors)
        ended = time.monotonic()
        # Until the first success of each kind after the end, on the nodes that were not struck.
        await self.cluster.until("survivors go on", lambda: self.all_after(survivors, ended), PATIENCE)
        until = time.monotonic()
        seen = {"back": back - struck}
        for kind in ("set", "get", "sign"):
            seen[kind] = max(stream.gap(struck, until) for stream in survivors if stream.kind == kind)
        seen["lag"] = max(self.lags, default=0.0)
        return seen

    @staticmethod
    async def all_after(streams: list[Stream], since: float) -> bool:
        return all(any(begun > since for begun, _ in stream.answered[-50:]) for stream in streams)

    async def written_after(self, survivors: list[Stream], since: float) -> float:
        """When the first write was acknowledged that was begun after this moment, on each survivor."""
        sets = [stream for stream in survivors if stream.kind == "set"]

        def first(stream: Stream) -> float | None:
            return min((done for begun, done in stream.answered if begun > since), default=None)

        async def all_written() -> bool:
            return all(first(stream) for stream in sets)

        await self.cluster.until("writes are acknowledged again", all_written, PATIENCE)
        return max(first(stream) or 0.0 for stream in sets)

    def strikes(self) -> dict[str, Callable[[Node, list[Stream]], Awaitable[float]]]:
        """By the last word of a fault; each answers when writes were back."""

        async def killed(victim: Node, survivors: list[Stream]) -> float:
            since = time.monotonic()
            victim.wanted = False
            victim.signal(9)
            back = await self.written_after(survivors, since)
            await victim.kill()
            await asyncio.sleep(DOWN)
            # Its coming back is part of what the survivors may feel.
            await victim.start()
            await self.cluster.until(f"{victim.name} is back", lambda: victim.healthy("/healthz/ready"), PATIENCE)
            return back

        async def stopped(victim: Node, survivors: list[Stream]) -> float:
            since = time.monotonic()
            stopping = asyncio.create_task(victim.stop())
            back = await self.written_after(survivors, since)
            assert await stopping == 0, f"{victim.name} did not stop cleanly"
            await asyncio.sleep(DOWN)
            await victim.start()
            await self.cluster.until(f"{victim.name} is back", lambda: victim.healthy("/healthz/ready"), PATIENCE)
            return back

        async def paused(victim: Node, survivors: list[Stream]) -> float:
            since = time.monotonic()
            victim.pause()
            back = await self.written_after(survivors, since)
            await asyncio.sleep(max(0.0, since + PAUSE - time.monotonic()))
            victim.resume()
            return back

        async def cut_off(victim: Node, survivors: list[Stream]) -> float:
            everyone = {node.number for node in self.cluster.nodes}
            self.cluster.partition([{victim.number}, everyone - {victim.number}])
            since = time.monotonic()
            back = await self.written_after(survivors, since)
            await asyncio.sleep(max(0.0, since + PAUSE - time.monotonic()))
            self.cluster.heal()
            return back

        return {"killed": killed, "stopped": stopped, "paused": paused, "cut off": cut_off}


def quantile(values: list[float], q: float) -> float:
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * int(q * 1000) // 1000) - 1))]


def summary(values: list[float]) -> dict[str, float]:
    return {name: round(quantile(values, q), 3) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def report(run: Run, load: list[float], seconds: float) -> None:
    """A table for people, a line for programs."""
    arguments = run.arguments
    kinds = {"back": "writes back", "set": "set gap", "get": "get gap", "sign": "sign gap"}
    titles = "".join(f"  {title + ' p50 / p99 / max':>32}" for title in kinds.values())
    print(f"\n{'fault':<18}{'mode':<12}{'n':>3}{titles}")
    found: dict[str, Any] = {mode: {} for mode in run.modes}
    for fault in run.faults:
        for mode in run.modes:
            seen = run.found[mode, fault]
            figures = {kind: summary([one[kind] for one in seen]) for kind in kinds}
            found[mode][fault] = {"n": len(seen), **figures}
            cells = [f"{f['p50']:.2f} / {f['p99']:.2f} / {f['max']:.2f}" for f in figures.values()]
            print(f"{fault:<18}{mode:<12}{len(seen):>3}" + "".join(f"  {cell:>32}" for cell in cells))
    normal: dict[str, Any] = {mode: {} for mode in run.modes}
    for (mode, kind), took in run.normal.items():
        normal[mode][kind] = {name: round(seconds * 1000, 1) for name, seconds in summary(took).items()}
    whole = {
        "seed": arguments.seed,
        "nodes": arguments.nodes,
        "rate_per_node_and_kind": arguments.rate,
        "cores": os.cpu_count(),
        "load_average": {"least": min(load), "mean": round(sum(load) / len(load), 1), "most": max(load)},
        "seconds": round(seconds),
        "normal_ms": normal,
        "late_client_s": summary([one["lag"] for seen in run.found.values() for one in seen]),
        "left_out": sum(stream.left_out for stream in run.streams),
        "refused": sum(stream.refused for stream in run.streams),
        "faults": found,
    }
    print(json.dumps(whole), flush=True)


async def watch_load(load: list[float]) -> None:
    while True:
        load.append(round(os.getloadavg()[0], 1))
        await asyncio.sleep(10)


async def measure(arguments: argparse.Namespace) -> None:
    faults = SHORT
    if not arguments.short:
        faults = {fault: max(1, count * arguments.percent // 100) for fault, count in FAULTS.items()}
    if arguments.faults:
        faults = {fault: count for fault, count in faults.items() if fault in arguments.faults.split(",")}
    load: list[float] = []
    watching = asyncio.create_task(watch_load(load))
    started = time.monotonic()
    run = Run(arguments, ["lease"] if arguments.short else arguments.modes.split(","), faults)
    await run.go()
    watching.cancel()
    report(run, load, time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--directory", required=True, help="made by the run, removed by a good one")
    parser.add_argument("--modes", default="lease,read_index")
    parser.add_argument("--faults", help="only these, comma-separated")
    parser.add_argument("--nodes", type=int, default=3, choices=(3, 5))
    parser.add_argument("--rate", type=float, default=50, help="requests per second, for each node and kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--percent", type=int, default=100, help="so much of the usual number of faults")
    parser.add_argument("--settings", default="", help="more of the nodes' configuration, as TOML")
    parser.add_argument("--short", action="store_true", help="a few faults in one mode: does everything come back?")
    parser.add_argument("--keep", action="store_true", help="keep logs and data of a good run too")
    arguments = parser.parse_args()
    check_namespaces()
    shutil.rmtree(arguments.directory, ignore_errors=True)
    os.makedirs(arguments.directory)
    try:
        asyncio.run(measure(arguments))
    except BaseException:
        say(f"logs: {arguments.directory}")
        raise
    if not arguments.keep:
        shutil.rmtree(arguments.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
