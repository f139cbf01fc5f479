"""Claviger nodes as real processes, each in a network namespace of its own, on a bridge that exists for this run only.

run.sh has put this process into fresh network, mount and process namespaces: nothing made here is seen outside, and all
of it goes with the run, however the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from https import get_plain

DOMAIN = "kms.localhost"
PORT, PEER, ADMIN = 8443, 8444, 8445
NETWORK = "10.77.0"
VAULTS = ("alpha", "beta")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
DRIFT = {1: "1.0004", 2: "0.9996"}  # rates of clocks, together within the 1,000 millionths that leases allow


def run(*command: str, stdin: str | None = None, patience: float = 30) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=patience)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


async def run_async(*command: str, patience: float = 15) -> tuple[int, str, str]:
    """Exit code, output and errors of a command; -1 when it does not end in time."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), patience)
        return child.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
    except TimeoutError:
        child.kill()
        await child.wait()
        return -1, "", "not in time"


class Node:
    """One node: its namespace, its configuration, its process."""

    def __init__(self, cluster: Cluster, number: int):
        self.cluster, self.number, self.name = cluster, number, f"node{number}"
        self.id = number  # a new one each time its disk is thrown away
        self.ip, self.space = f"{NETWORK}.{number}", f"n{number}"
        self.clock = cluster.directory / f"clock-{number}"
        self.config = cluster.directory / f"{self.name}.toml"
        self.log = cluster.directory / f"{self.name}.log"
        self.process: asyncio.subprocess.Process | None = None
        self.wanted = False  # whether it is meant to run: an end that nobody asked for is a crash
        self.paused = False
        self.cut: set[int] = set()  # nodes whose packets do not arrive here
        self.starts = 0

    def make(self) -> None:
        for command in (
            f"ip netns add {self.space}",
            f"ip link add v{self.number} type veth peer name eth0 netns {self.space}",
            f"ip link set v{self.number} master hub up",
            f"ip -n {self.space} addr add {self.ip}/24 dev eth0",
            f"ip -n {self.space} link set eth0 up",
            f"ip -n {self.space} link set lo up",
        ):
            run(*command.split())
        self.nft(
            "table inet chaos {\nset cut { type ipv4_addr; }\n"
            "chain in {\ntype filter hook input priority 0; policy accept;\nip saddr @cut drop\n}\n}"
        )
        self.set_clock(0)
        self.configure()

    def configure(self) -> None:
        secrets, cluster = self.cluster.secrets, self.cluster
        seeds = ", ".join(f'"{NETWORK}.{n}:{PEER}"' for n in range(1, cluster.size + 1))
        self.config.write_text(
            f"""
[node]
id = {self.id}
name = "{self.name}"
data_dir = "{cluster.directory}/data-{self.number}"
[world]
file = "{secrets}/world.key"
[api]
listen = "{self.ip}:{PORT}"
domain = "{DOMAIN}"
public_port = {PORT}
certificate = "{secrets}/api.pem"
key = "{secrets}/api.key"
[peer]
listen = "{self.ip}:{PEER}"
advertise = "{self.ip}:{PEER}"
ca = "{secrets}/peer-ca.pem"
certificate = "{secrets}/{self.name}.pem"
key = "{secrets}/{self.name}.key"
seeds = [{seeds}]
[admin]
listen = "{self.ip}:{ADMIN}"
allow_remote = true
[raft]
# Small, so that a run makes snapshots, and nodes that were away get them.
snapshot_entries = 400
keep_entries = 100
{cluster.settings}
"""
        )

    def nft(self, rules: str) -> None:
        run("ip", "netns", "exec", self.space, "nft", "-f", "-", stdin=rules + "\n")

    def set_cut(self, sources: set[int]) -> None:
        """From now on packets of these nodes do not arrive here, and those of all others do."""
        self.cut = set(sources)
        elements = ", ".join(f"{NETWORK}.{n}" for n in sorted(sources))
        add = f"\nadd element inet chaos cut {{ {elements} }}" if sources else ""
        self.nft(f"flush set inet chaos cut{add}")

    def set_clock(self, seconds: int) -> None:
        """Moves the wall clock of the process so far from the machine's; it may be in the middle of its work."""
        drift = f" x{DRIFT[self.number]}" if self.number in DRIFT else ""
        self.clock.write_text(f"{seconds:+d}{drift}\n")

    def time(self) -> dict[str, str]:
        """An environment in which the process sees its own time. The first two nodes' clocks all run at rates of their
        own, within what leases allow; of the others only the wall clock can be moved."""
        if self.cluster.true_time:
            return dict(os.environ)
        fixed = {} if self.number in DRIFT else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return {
            **os.environ,
            **fixed,
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1",
        }

    async def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self.starts += 1
        with self.log.open("ab") as log:
            log.write(f"--- start {self.starts} ---\n".encode())
            log.flush()
            self.process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self.space, "setpriv", "--pdeathsig", "KILL", "--"),
                *(self.cluster.binary, "server", "--config", str(self.config)),
                env=self.time(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wanted = True

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                self.process.send_signal(number)

    def pause(self) -> None:
        self.paused = True
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.paused = False
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        self.wanted = False
        self.signal(signal.SIGKILL)
        if self.process:
            await self.process.wait()

    async def stop(self, patience: float = 15) -> int | None:
        """SIGTERM; the exit code, or `None` when it had to be killed."""
        self.wanted = False
        self.signal(signal.SIGTERM)
        if not self.process:
            return 0
        try:
            return await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            await self.kill()
            return None

    async def healthy(self, path: str = "/healthz/live") -> bool:
        reply = await get_plain((self.ip, ADMIN), path)
        return reply is not None and reply.status == 200

    async def metrics(self) -> dict[str, float]:
        reply = await get_plain((self.ip, ADMIN), "/metrics")
        found: dict[str, float] = {}
        for line in (reply.body.decode() if reply and reply.status == 200 else "").splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found


class Cluster:
    """A world and its nodes."""

    def __init__(self, directory: Path, binary: str, size: int, settings: str = "", true_time: bool = False):
        self.directory, self.binary, self.size, self.settings = directory, binary, size, settings
        self.true_time = true_time  # whether clocks are the machine's: moving them costs time, too
        self.secrets = directory / "secrets"
        self.nodes = [Node(self, number) for number in range(1, size + 1)]
        self.credentials: dict[str, Any] = {}

    def claviger(self, *arguments: str, patience: float = 60) -> str:
        return run(self.binary, *arguments, patience=patience)

    async def make(self) -> None:
        names = [part for node in self.nodes for part in ("--node", node.name)]
        self.claviger("world", "init", "--out", str(self.secrets), "--region", "local", "--domain", DOMAIN, *names)
        for command in (
            "ip link set lo up",
            "ip link add hub type bridge",
            f"ip addr add {NETWORK}.254/24 dev hub",
            "ip link set hub up",
        ):
            run(*command.split())
        for node in self.nodes:
            node.make()
            await node.start()
        for node in self.nodes:
            await self.until(f"{node.name} answers", node.healthy, 30)
        first, *rest = self.nodes
        vaults = [part for vault in VAULTS for part in ("--vault", vault)]
        self.credentials = json.loads(self.claviger("cluster", "init", "--config", str(first.config), *vaults))
        for node in rest:
            self.claviger("cluster", "join", "--config", str(node.config))
        for node in self.nodes:
            await self.until(f"{node.name} is ready", lambda node=node: node.healthy("/healthz/ready"), 30)

    @staticmethod
    async def until(what: str, condition: Any, patience: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while not await condition():
            if loop.time() > end:
                raise RuntimeError(f"not within {patience} s: {what}")
            await asyncio.sleep(0.05)

    def heal(self) -> None:
        for node in self.nodes:
            node.set_cut(set())

    def partition(self, groups: list[set[int]]) -> None:
        """Only nodes of the same group hear each other."""
        everyone = {node.number for node in self.nodes}
        for node in self.nodes:
            own = next(group for group in groups if node.number in group)
            node.set_cut(everyone - own)

    async def status(self) -> dict[int, dict[str, Any] | None]:
        """What each node says of itself, asked through node 1."""
        code, out, err = await run_async(
            self.binary, "cluster", "status", "--config", str(self.nodes[0].config), "--json"
        )
        if code != 0:
            raise RuntimeError(f"cluster status: {code}: {err}")
        return {node["id"]: node.get("status") for node in json.loads(out)["nodes"]}

    async def close(self) -> None:
        for node in self.nodes:
            await node.kill()


def check_namespaces() -> None:
    """Fails with a clear word when this process may not do what the run needs."""
    if os.readlink("/proc/self/ns/net") == os.environ.get("CHAOS_OUTER_NET", ""):
        raise RuntimeError("this process is in the network namespace of the machine: start tests/chaos/run.sh")
