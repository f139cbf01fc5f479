"""One run: nodes, clients, faults, then checks. run.sh starts this inside namespaces of its own.

The seed fixes what is chosen: faults, their order and length, operations. It does not fix what the machine makes of it,
so the same seed repeats the same kind of run, not the same interleaving. The history is what a failure is judged by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import checks
from cluster import Cluster, Node, check_namespaces
from nemesis import ALL, Nemesis, Watch
from workload import DIGEST, Client, Object, Workload

HERE = Path(__file__).resolve().parent
LIVENESS = 20.0  # seconds from the end of all faults to reads and writes through every node
REPEATS = 5
SHOWN = 4  # violations of each check that are printed; the history has them all


def say(text: str) -> None:
    print(f"chaos: {text}", flush=True)


class Run:
    """One run and what it found."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.directory = Path(arguments.directory)
        settings = f'[read]\nmode = "{arguments.read_mode}"' if arguments.read_mode else ""
        self.cluster = Cluster(self.directory, arguments.binary, arguments.nodes, settings)
        self.violations: list[str] = []
        self.summary: dict[str, Any] = {}
        self.final: list[dict[str, Any]] = []

    async def go(self) -> None:
        arguments, cluster = self.arguments, self.cluster
        say(f"{arguments.nodes} nodes, {arguments.clients} clients, {arguments.seconds} s, seed {arguments.seed}")
        await cluster.make()
        self.workload = workload = Workload(cluster, arguments.seed, arguments.clients, arguments.pause / 1000)
        await workload.fetch_token()
        self.watch = watch = Watch(cluster)
        self.nemesis = nemesis = Nemesis(
            cluster, watch, arguments.seed, arguments.sabotage, arguments.lose_disks
        )
        watching = [asyncio.create_task(watch.run()), asyncio.create_task(nemesis.crashes())]
        clients = workload.start()
        # A calm second, so that there is something to lose.
        await asyncio.sleep(1)
        faults = nemesis.start()
        await self.pass_time(arguments.seconds, [*watching, *clients, *faults])
        nemesis.stopping.set()
        await asyncio.gather(*faults)
        nemesis.stopping.clear()
        await nemesis.make_up()
        cluster.heal()
        nemesis.note("all healed")
        await nemesis.settle()
        await self.liveness()
        await workload.finish(clients)
        await self.read_everything()
        await self.agree()
        for task in watching:
            task.cancel()

    async def pass_time(self, seconds: float, tasks: list[asyncio.Task[None]]) -> None:
        """Sleeps; an error in any task ends the run at once."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            left = min(1.0, until - time.monotonic())
            done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()

    async def liveness(self) -> None:
        """All faults are over: each node serves reads, and a write through it is acknowledged, within the bound."""
        started = time.monotonic()

        async def alive(node: Node) -> float:
            client, probe = self.workload.client(node), Object("alpha", "secret", f"probe-{node.number}", ops=1)
            self.workload.objects.append(probe)
            while time.monotonic() - started < LIVENESS:
                written = await client.do(probe, "set")
                if written["result"] == "ok" and (await client.do(probe, "get"))["result"] == "ok":
                    return time.monotonic() - started
                await asyncio.sleep(0.1)
            self.violations.append(f"liveness: node{node.number} serves nothing {LIVENESS:.0f} s after the last fault")
            return LIVENESS

        times = await asyncio.gather(*(alive(node) for node in self.cluster.nodes))
        self.summary["healed_after_s"] = round(max(times), 2)

    async def sure(self, client: Client, obj: Object, f: str, *rest: Any) -> dict[str, Any]:
        """An operation of the calm after the storm, which has to be answered."""
        for _ in range(REPEATS):
            op = await client.do(obj, f, *rest)
            if op["result"] not in ("none", "unknown"):
                return op
            await asyncio.sleep(0.5)
        self.violations.append(f"no answer in the calm at the end: {checks.show(op)}")
        return op

    async def read_everything(self) -> None:
        """Brings every object back to life, then reads every version through every node; all in the history."""
        nodes = self.cluster.nodes
        places = asyncio.Semaphore(12)
        idle = [[self.workload.client(node) for _ in range(4)] for node in nodes]

        async def through(index: int, *call: Any) -> dict[str, Any]:
            async with places:
                while not idle[index]:
                    await asyncio.sleep(0.002)
                client = idle[index].pop()
                try:
                    return await self.sure(client, *call)
                finally:
                    idle[index].append(client)

        async def whole(number: int, obj: Object) -> None:
            first = number % len(nodes)
            listed = await through(first, obj, "list")
            if not listed.get("items"):
                await through(first, obj, "recover")
                listed = await through(first, obj, "list")
            for item in listed.get("items", ()):
                if not item["enabled"]:
                    await through(first, obj, "patch", item["version"], True)
            reads = [through(index, obj, "list") for index in range(len(nodes))]
            reads += [
                through(index, obj, "get", item["version"])
                for index in range(len(nodes))
                for item in listed.get("items", ())
            ]
            self.final += await asyncio.gather(*reads)

        objects = [obj for obj in self.workload.objects if obj.ops]
        await asyncio.gather(*(whole(number, obj) for number, obj in enumerate(objects)))

    async def agree(self) -> None:
        """Equal applied index and equal audit chain on all nodes."""
        end, seen = time.monotonic() + 15, None
        while time.monotonic() < end:
            try:
                told = await self.cluster.status()
                seen = {number: status and (status["applied"], status["chain"]) for number, status in told.items()}
                stopped = [f"node{n}: {s['stopped']}" for n, s in told.items() if s and s["stopped"]]
                if len(seen) == self.arguments.nodes and len(set(seen.values())) == 1 and None not in seen.values():
                    self.summary["applied"], self.summary["chain"] = next(iter(seen.values()))
                    self.violations += [f"a node has stopped: {text}" for text in stopped]
                    return
            except RuntimeError as error:
                seen = error
            await asyncio.sleep(0.3)
        self.violations.append(f"nodes do not agree on applied index and audit chain: {seen}")

    # --- after the processes are gone ---

    def judge(self) -> None:
        ops = sorted(self.workload.recorder.ops, key=lambda op: op["inv"])
        recorder, nemesis = self.workload.recorder, self.nemesis
        history = self.directory / "history.jsonl"
        with history.open("w") as out:
            for op in ops:
                out.write(json.dumps(op) + "\n")
        (self.directory / "faults.jsonl").write_text("".join(json.dumps(event) + "\n" for event in nemesis.events))
        started = time.monotonic()
        found = {
            "revocation": checks.revocations(ops),
            "known order": checks.known_order(ops),
            "nothing changed": checks.promised_nothing(ops),
            "lost": checks.nothing_lost(ops, self.final, self.arguments.nodes),
            "signature": checks.signatures(recorder.jwks, recorder.signatures, DIGEST),
            "answer": recorder.faults,
            "process": nemesis.problems,
            "election": [f"term {t} had leaders {sorted(n)}" for t, n in self.watch.leaders.items() if len(n) > 1],
            "log": self.read_logs(),
        }
        own = time.monotonic() - started
        verdict = self.porcupine(history)
        found["linearizability"] = [f"not linearizable (Porcupine): {obj}" for obj in verdict["illegal"]]
        self.violations += [f"{check}: {text}" for check, texts in found.items() for text in texts]

        results = Counter(op["result"] for op in ops)
        revocations = checks.acknowledged_revocations(ops)
        seconds = self.arguments.seconds
        vacuous = [f"nemesis {name} was never applied" for name in ALL if not nemesis.applied[name]]
        least = {
            "operations": (len(ops), 100 * seconds),
            "acknowledged revocations": (revocations, 5 * seconds),
            "acknowledged sets": (sum(op["f"] == "set" and op["result"] == "ok" for op in ops), seconds),
            "refusals of what is revoked": (results["disabled"] + results["notfound"], 5 * seconds),
            "revocations chased to other nodes": (self.workload.chased, seconds),
            "changes of leader": (self.watch.changes(), 1),
            "signatures": (len(recorder.signatures), 2 * seconds),
            "operations without an answer": (results["unknown"], 1),
            "objects decided by Porcupine": (verdict["objects"] - len(verdict["undecided"]), 0.9 * verdict["objects"]),
        }
        if self.arguments.read_mode in (None, "lease"):
            ways = {"local": 10 * seconds, "held": 1, "round": 1, "repeated": 1}
            least |= {f"reads: {way}": (self.watch.reads[way], want) for way, want in ways.items()}
        vacuous += [f"{what}: {got}, at least {want:.0f} wanted" for what, (got, want) in least.items() if got < want]
        self.summary = {
            "ok": not self.violations and not vacuous,
            "seed": self.arguments.seed,
            "seconds": seconds,
            "nodes": self.arguments.nodes,
            "read_mode": self.arguments.read_mode or "default",
            "violations": len(self.violations),
            "vacuous": vacuous,
            "ops": len(ops),
            "results": dict(sorted(results.items())),
            "acknowledged_writes": sum(op["f"] not in ("get", "sign", "list") and op["result"] == "ok" for op in ops),
            "acknowledged_sets": least["acknowledged sets"][0],
            "acknowledged_revocations": revocations,
            "chased": self.workload.chased,
            "lost": len(found["lost"]),
            "signatures": len(recorder.signatures),
            "write_ms": self.latency(ops, writes=True),
            "read_ms": self.latency(ops, writes=False),
            "snapshots_installed": self.count_in_logs("installing a snapshot"),
            "reads": dict(sorted(self.watch.reads.items())),
            "leader_changes": self.watch.changes(),
            "terms": max(self.watch.leaders, default=0),
            "nemeses": dict(sorted(nemesis.applied.items())),
            "objects": verdict["objects"],
            "porcupine": {
                "ops": verdict["ops"],
                "longest": verdict["longest"],
                "undecided": len(verdict["undecided"]),
                "seconds": round(verdict["seconds"], 2),
            },
            "checks_s": round(own, 2),
            **self.summary,
        }

    @staticmethod
    def latency(ops: list[dict[str, Any]], *, writes: bool) -> dict[str, int]:
        """How long answers took that were not "not now", under faults."""
        changing = ("set", "patch", "delete", "recover")
        answered = [op for op in ops if (op["f"] in changing) == writes and op["result"] not in ("none", "unknown")]
        times = sorted((op["ret"] - op["inv"]) / 1e6 for op in answered) or [0.0]
        quantiles = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {name: round(times[min(len(times) - 1, int(len(times) * q))]) for name, q in quantiles.items()}

    def porcupine(self, history: Path) -> dict[str, Any]:
        done = subprocess.run(
            [self.arguments.checker, "-pictures", str(self.directory), str(history)],
            capture_output=True,
            text=True,
            timeout=900,
        )
        if done.returncode not in (0, 1):
            raise RuntimeError(f"checker: {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def read_logs(self) -> list[str]:
        found = []
        for node in self.cluster.nodes:
            lines = node.log.read_text(errors="replace").splitlines()
            found += [f"{node.name}: {line.strip()}" for line in lines if "panicked" in line][:5]
        return found

    def count_in_logs(self, text: str) -> int:
        return sum(node.log.read_text(errors="replace").count(text) for node in self.cluster.nodes)


async def storm(run: Run) -> None:
    try:
        # Every wait has an end of its own; this one is for what nobody thought of.
        async with asyncio.timeout(1.5 * run.arguments.seconds + 300):
            await run.go()
    finally:
        await run.cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=3, choices=(3, 5))
    parser.add_argument("--clients", type=int, default=18)
    parser.add_argument("--pause", type=float, default=8, help="mean milliseconds between a client's operations")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--checker", required=True)
    parser.add_argument("--directory", required=True, help="made by the run; kept when it fails")
    parser.add_argument("--read-mode", help="read.mode of all nodes, the server's default unless given")
    parser.add_argument("--sabotage", action="store_true", help="roll all disks back in time: the run has to fail")
    parser.add_argument("--lose-disks", action="store_true", help="also start nodes without their disks")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a good run too")
    arguments = parser.parse_args()
    check_namespaces()
    shutil.rmtree(arguments.directory, ignore_errors=True)
    os.makedirs(arguments.directory)
    run = Run(arguments)
    asyncio.run(storm(run))
    run.judge()
    good = run.summary["ok"]
    if good and not arguments.keep:
        shutil.rmtree(arguments.directory)
    if not good:
        shown: Counter[str] = Counter()
        for violation in run.violations:
            check = violation.partition(":")[0]
            shown[check] += 1
            if shown[check] <= SHOWN:
                say(violation)
        say("violations: " + (", ".join(f"{count} {check}" for check, count in shown.items()) or "none"))
        for reason in run.summary["vacuous"]:
            say(f"vacuous: {reason}")
        say(f"history, faults and logs: {arguments.directory}")
        say(f"repeat: make test-chaos SECONDS={arguments.seconds} SEED={arguments.seed} NODES={arguments.nodes}")
    print(json.dumps(run.summary), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
