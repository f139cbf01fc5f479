"""What goes wrong, chosen by the seed: three loops at once, one for the network, one for processes, one for what an
operator does (and clocks).

Each loop deals its faults from a shuffled deck, so that a run of some length has them all; each fault ends by itself.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from typing import Any

from cluster import DRIFT, Cluster, Node, run_async

NETWORK = ("cut-leader", "cut-follower", "halves", "one-way-to-leader", "one-way-from-leader", "one-way-random")
PROCESS = ("kill-leader", "kill-random", "pause-leader", "pause-random", "restart", "kill-all")
OPERATOR = ("transfer", "replace", "read-mode", "clock-jump")
ALL = NETWORK + PROCESS + OPERATOR
# Not dealt unless asked for: see `lose_disk`.
LOST_DISK = "lost-disk"

JUMP = 25  # seconds that a wall clock is moved: a token of another node is still good
AGAIN = 20.0  # seconds for a command of an operator that has to succeed in the end


class Watch:
    """Follows who leads, by asking every node's metrics all the time."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.leaders: dict[int, set[int]] = {}  # term -> nodes that led in it
        self.current: int | None = None
        self.reads: Counter[str] = Counter()  # by the way they took through the read gate
        self.counted: dict[tuple[int, str], float] = {}

    async def run(self) -> None:
        while True:
            answers = await asyncio.gather(*(node.metrics() for node in self.cluster.nodes))
            leading = []
            for node, metrics in zip(self.cluster.nodes, answers, strict=True):
                self.count(node.number, metrics)
                if metrics.get('claviger_raft_role{role="leader"}') == 1:
                    term = int(metrics["claviger_raft_term"])
                    self.leaders.setdefault(term, set()).add(node.number)
                    leading.append((term, node.number))
            self.current = max(leading)[1] if leading else None
            await asyncio.sleep(0.2)

    def count(self, node: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if name.startswith("claviger_reads_total") or name == "claviger_validate_failures_total":
                way = name.partition('path="')[2].rstrip('"}') or "repeated"
                before = self.counted.get((node, way), 0)
                # A counter that fell is that of a new process.
                self.reads[way] += int(value - before if value >= before else value)
                self.counted[node, way] = value

    def changes(self) -> int:
        order = [next(iter(self.leaders[term])) for term in sorted(self.leaders)]
        return sum(a != b for a, b in zip(order, order[1:], strict=False))


class Nemesis:
    """The faults of one run."""

    def __init__(
        self, cluster: Cluster, watch: Watch, seed: int, sabotage: bool = False, lose_disks: bool = False
    ):
        self.cluster, self.watch, self.seed, self.sabotage = cluster, watch, seed, sabotage
        self.operator_deck = OPERATOR + ((LOST_DISK,) if lose_disks else ())
        self.applied: Counter[str] = Counter()
        self.events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.stopping = asyncio.Event()
        self.hands = asyncio.Lock()  # only one at a time starts and stops processes

    def note(self, what: str, **more: Any) -> None:
        self.events.append({"at": time.monotonic_ns(), "nemesis": what, **more})

    def start(self) -> list[asyncio.Task[None]]:
        loops = ((NETWORK, 0.3, 1.2), (PROCESS, 0.3, 1.5), (self.operator_deck, 1.0, 3.0))
        return [asyncio.create_task(self.loop(*loop)) for loop in loops]

    async def loop(self, deck: tuple[str, ...], least: float, most: float) -> None:
        choose = random.Random(f"{self.seed} {deck}")
        while True:
            for fault in choose.sample(deck, len(deck)):
                if await self.rest(choose.uniform(least, most)):
                    return
                await self.apply(fault, choose)

    async def make_up(self) -> None:
        """Applies what a short or slow run has not come to yet, so that no run leaves a fault out."""
        choose = random.Random(f"{self.seed} made up")
        for fault in ALL:
            for _ in range(3):
                if self.applied[fault]:
                    break
                self.note("made up for", fault=fault)
                await self.apply(fault, choose)
                await self.rest(1.5)

    async def rest(self, seconds: float) -> bool:
        """Waits; true when the run is over."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def leader_or(self, choose: random.Random) -> Node:
        # Drawn in any case, so that the sequence of choices is the seed's alone.
        other = choose.choice(self.cluster.nodes)
        return self.cluster.nodes[self.watch.current - 1] if self.watch.current else other

    async def apply(self, fault: str, choose: random.Random) -> None:
        leader, duration = self.leader_or(choose), choose.uniform(0.4, 2.5)
        shuffled = choose.sample(self.cluster.nodes, self.cluster.size)
        follower = next(node for node in shuffled if node is not leader)
        everyone = {node.number for node in self.cluster.nodes}
        if fault in NETWORK:
            if fault in ("cut-leader", "cut-follower"):
                alone = leader if fault == "cut-leader" else follower
                self.note(fault, node=alone.number)
                self.cluster.partition([{alone.number}, everyone - {alone.number}])
            elif fault == "halves":
                half = {node.number for node in shuffled[: self.cluster.size // 2 + choose.randrange(2)]}
                self.note(fault, groups=[sorted(half), sorted(everyone - half)])
                self.cluster.partition([half, everyone - half])
            elif fault == "one-way-to-leader":
                self.note(fault, node=leader.number)
                leader.set_cut(everyone - {leader.number})
            elif fault == "one-way-from-leader":
                self.note(fault, node=leader.number)
                for node in self.cluster.nodes:
                    if node is not leader:
                        node.set_cut({leader.number})
            else:
                deaf, mute = shuffled[:2]
                self.note(fault, deaf=deaf.number, mute=mute.number)
                deaf.set_cut({mute.number})
            self.applied[fault] += 1
            await self.rest(duration)
            self.cluster.heal()
            self.note("healed")
        elif fault == "transfer":
            to = follower
            self.note(fault, to=to.number)
            code, _, error = await run_async(
                *(self.cluster.binary, "cluster", "transfer-leader"),
                *("--config", str(leader.config), "--to", str(to.id)),
                patience=8,
            )
            self.note("transferred" if code == 0 else "not transferred", to=to.number, error=error.strip()[-200:])
            # Amid other faults it may well be refused; only one that was carried out counts.
            self.applied[fault] += code == 0
        elif fault == "clock-jump":
            # Only where the monotonic clock stays as it is: one that jumps is not what leases allow.
            node = next(node for node in shuffled if node.number not in DRIFT)
            seconds = choose.choice((-JUMP, JUMP))
            self.note(fault, node=node.number, seconds=seconds)
            node.set_clock(seconds)
            await self.rest(duration + 1)
            node.set_clock(0)
            self.applied[fault] += 1
        elif fault == "read-mode":
            await self.read_mode("read_index", choose)
            await self.rest(duration)
            await self.read_mode("lease", choose)
        elif fault in ("replace", LOST_DISK):
            async with self.hands:
                if fault == LOST_DISK:
                    await self.lose_disk(follower, duration)
                await self.replace(follower, leader, lost=fault == LOST_DISK)
        else:
            pause = choose.uniform(0.1, 5.0)
            async with self.hands:
                await self.process_fault(fault, leader, shuffled, duration, pause)

    async def operator(self, *command: str, patience: float = 8) -> tuple[int, str]:
        code, _, error = await run_async(self.cluster.binary, "cluster", *command, patience=patience)
        return code, error.strip()[-200:]

    async def insist(self, *command: str) -> bool:
        """A command that must come through, amid other faults: given again until it does."""
        end, error = time.monotonic() + AGAIN, ""
        while time.monotonic() < end:
            code, error = await self.operator(*command)
            if code == 0:
                return True
            await asyncio.sleep(0.2)
        self.note("not carried out", command=command, error=error)
        return False

    async def read_mode(self, mode: str, choose: random.Random) -> None:
        node = choose.choice(self.cluster.nodes)
        code, error = await self.operator("read-mode", "--config", str(node.config), mode)
        self.note("read-mode", mode=mode, code=code, error=error)
        self.applied["read-mode"] += code == 0

    async def lose_disk(self, node: Node, duration: float) -> None:
        """A node comes back without its disk under its old id: the others must turn it away, or it votes a second time.

        A run that cannot remove it while other faults go on may go on to lose a second one, and with it a majority of the
        disks: such a run proves nothing.
        """
        self.note("lost-disk", node=node.number, id=node.id)
        await node.kill()
        shutil.rmtree(self.cluster.directory / f"data-{node.number}")
        await node.start()
        await self.up(node)
        end = time.monotonic() + duration
        while time.monotonic() < end:
            # A term is all that a vote or an entry would have left there.
            term = (await node.metrics()).get("claviger_raft_term", 0)
            if term > 0:
                self.problems.append(f"{node.name} lost the disk of member {node.id}, and yet has term {term:.0f}")
                break
            await asyncio.sleep(0.1)
        self.applied[LOST_DISK] += 1

    async def replace(self, node: Node, leader: Node, *, lost: bool = False) -> None:
        """Takes a node out of the cluster, throws its disk away and lets it join under a new id."""
        self.note("replace", node=node.number, id=node.id)
        remove = ("remove", "--config", str(leader.config), "--node", str(node.id))
        code, error = await self.operator(*remove)
        end = time.monotonic() + AGAIN
        # One without its disk is of no use under its id: again until it is gone.
        while lost and code != 0 and "is not a member" not in error and time.monotonic() < end:
            await asyncio.sleep(0.2)
            code, error = await self.operator(*remove)
        if code != 0 and not (lost and "is not a member" in error):
            # It may be carried out yet; joining a member changes nothing.
            self.note("not removed", node=node.number, error=error)
            if node.alive:
                await self.insist("join", "--config", str(node.config))
            return
        await node.kill()
        shutil.rmtree(self.cluster.directory / f"data-{node.number}")
        node.id += 10
        node.configure()
        await node.start()
        await self.up(node)
        if await self.insist("join", "--config", str(node.config)):
            self.applied["replace"] += 1

    async def settle(self) -> None:
        """At the end every node is a member, and reads are made under leases."""
        for node in self.cluster.nodes:
            if not await self.insist("join", "--config", str(node.config)):
                self.problems.append(f"{node.name} could not join in the calm at the end")
        if not self.cluster.settings:
            await self.insist("read-mode", "--config", str(self.cluster.nodes[0].config), "lease")

    async def process_fault(
        self, fault: str, leader: Node, shuffled: list[Node], duration: float, pause: float
    ) -> None:
        node = leader if fault.endswith("-leader") else shuffled[0]
        if fault == "kill-all":
            self.note(fault)
            for each in self.cluster.nodes:
                each.wanted = False
                each.signal(9)
            await asyncio.gather(*(each.kill() for each in self.cluster.nodes))
            await self.rest(min(duration, 0.5))
            if self.sabotage:
                self.roll_back()
            for each in shuffled:
                await each.start()
            await self.up(*self.cluster.nodes)
        elif fault.startswith("kill"):
            # Of five, two may die and the rest goes on.
            victims = [node] if self.cluster.size < 5 else [node, next(n for n in shuffled if n is not node)]
            self.note(fault, nodes=[victim.number for victim in victims])
            await asyncio.gather(*(victim.kill() for victim in victims))
            await self.rest(duration)
            for victim in victims:
                await victim.start()
            await self.up(*victims)
        elif fault.startswith("pause"):
            self.note(fault, node=node.number, seconds=round(pause, 2))
            node.pause()
            await self.rest(pause)
            node.resume()
            self.note("resumed", node=node.number)
        else:
            self.note(fault, node=node.number)
            code = await node.stop()
            if code != 0:
                self.problems.append(f"{node.name}: SIGTERM ended with {code} instead of 0 within 15 s")
            await node.start()
            await self.up(node)
        self.applied[fault] += 1

    def roll_back(self) -> None:
        """Negative control: takes every disk back to where it was when all were killed for the first time. Disks that
        lose what was synced break what the cluster assumes, so the checks have to find it."""
        for node in self.cluster.nodes:
            data, copy = self.cluster.directory / f"data-{node.number}", self.cluster.directory / f"old-{node.number}"
            if copy.exists():
                shutil.rmtree(data)
                shutil.copytree(copy, data)
                self.note("rolled back", node=node.number)
            else:
                shutil.copytree(data, copy)

    async def up(self, *nodes: Node) -> None:
        """Waits until started nodes answer at all."""
        end = time.monotonic() + 20
        for node in nodes:
            while node.alive and not await node.healthy():
                if time.monotonic() > end:
                    self.problems.append(f"{node.name} did not answer within 20 s of its start")
                    break
                await asyncio.sleep(0.05)
            self.note("up" if node.alive else "died at start", node=node.number)

    async def crashes(self) -> None:
        """Notes nodes that ended without being asked, and starts them again so that the run goes on."""
        while True:
            for node in self.cluster.nodes:
                if node.wanted and not node.alive:
                    code = node.process.returncode if node.process else None
                    self.problems.append(f"{node.name} ended by itself with {code}")
                    self.note("crashed", node=node.number, code=code)
                    await asyncio.sleep(0.5)
                    if node.wanted and not node.alive:
                        await node.start()
            await asyncio.sleep(0.1)
