"""Clients on all nodes at once, few hot objects, and a record of every operation.

There are four objects at a time in two vaults. Each lives for at most ~200 operations and is then replaced by a fresh
one, so that the whole history of every object is short enough for an exact check (design/testing.md, section 3).
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from cluster import DOMAIN, PORT, VAULTS, Cluster, Node
from https import Connection, NoAnswer, NotSent, Reply

API = "api-version=2026-04-01"
OPS_PER_OBJECT = 180
SETS_PER_OBJECT = 18  # below 25, so that a list of versions is one page
READ_TIMEOUT, WRITE_TIMEOUT = 4.0, 6.0
DIGEST = b"\x5a" * 32


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Object:
    """One object, and what the clients believe of it: hints for choosing operations, never for judging them."""

    vault: str
    kind: str  # secret or key
    name: str
    ops: int = 0
    sets: int = 0
    deleted: bool = False
    versions: dict[str, str] = field(default_factory=dict)  # version -> id of the operation that made it
    disabled: set[str] = field(default_factory=set)
    latest: str | None = None

    @property
    def path(self) -> str:
        return f"/{self.kind}s/{self.name}"

    @property
    def host(self) -> str:
        return f"{self.vault}.vault.{DOMAIN}:{PORT}"

    def learn(self, version: str, made: str) -> None:
        self.versions.setdefault(version, made)


class Recorder:
    """The history. Times are nanoseconds of this process's monotonic clock: one process has all clients."""

    def __init__(self) -> None:
        self.ops: list[dict[str, Any]] = []
        self.jwks: dict[str, dict[str, str]] = {}  # version of a key -> its public half, as create answered
        self.values: dict[str, str] = {}  # id of a set -> the secret's value
        self.signatures: list[tuple[int, str, bytes]] = []  # operation, version, signature
        self.faults: list[str] = []  # answers that no fault of the cluster explains
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number


class Client:
    """One client, bound to one node."""

    def __init__(self, number: int, node: Node, tls: ssl.SSLContext, token: str, recorder: Recorder):
        self.number, self.node, self.recorder = number, node, recorder
        self.connection = Connection((node.ip, PORT), tls)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def call(self, method: str, host: str, path: str, body: Any = None, timeout: float = READ_TIMEOUT) -> Reply:
        data = None if body is None else json.dumps(body).encode()
        target = f"{path}{'&' if '?' in path else '?'}{API}"
        return await self.connection.request(method, host, target, self.headers, data, timeout)

    async def do(self, obj: Object, f: str, version: str = "", enabled: bool | None = None) -> dict[str, Any]:
        """One operation, recorded."""
        number = self.recorder.next()
        tag = f"o{number}"
        op: dict[str, Any] = {
            "id": number,
            "client": self.number,
            "node": self.node.number,
            "obj": f"{obj.vault}-{obj.name}",
            "kind": obj.kind,
            "f": f,
        }
        at = f"{obj.path}/{version}" if version else obj.path
        if version:
            op["version"] = version
        write, body = f in ("set", "patch", "delete", "recover"), None
        if f == "set":
            op["tag"] = tag
            tags = {"op": tag, "made": tag}
            if obj.kind == "secret":
                value = f"{tag}-{obj.name}"
                self.recorder.values[tag] = value
                method, path, body = "PUT", at, {"value": value, "tags": tags}
            else:
                method, path, body = "POST", f"{at}/create", {"kty": "EC", "crv": "P-256", "tags": tags}
        elif f == "patch":
            op |= {"tag": tag, "enabled": enabled}
            tags = {"op": tag, "made": obj.versions.get(version, "")}
            method, path, body = "PATCH", at, {"attributes": {"enabled": enabled}, "tags": tags}
        elif f == "delete":
            method, path = "DELETE", at
        elif f == "recover":
            method, path = "POST", f"/deleted{obj.kind}s/{obj.name}/recover"
        elif f == "sign":
            method, path, body = "POST", f"{at}/sign", {"alg": "ES256", "value": b64(DIGEST)}
        elif f == "list":
            method, path = "GET", f"{at}/versions?maxresults=25"
        else:
            method, path = "GET", at
        op["inv"] = time.monotonic_ns()
        try:
            reply = await self.call(method, obj.host, path, body, WRITE_TIMEOUT if write else READ_TIMEOUT)
            op["ret"] = time.monotonic_ns()
            op["status"] = reply.status
            self.judge(op, obj, reply)
        except NotSent as error:
            op |= {"ret": time.monotonic_ns(), "result": "none", "error": str(error)}
        except NoAnswer as error:
            op |= {"ret": time.monotonic_ns(), "result": "unknown", "error": str(error)}
        self.recorder.ops.append(op)
        return op

    def judge(self, op: dict[str, Any], obj: Object, reply: Reply) -> None:
        """Writes the outcome into the record."""
        body = reply.json if reply.body else {}
        if reply.status in (200, 204):
            op["result"] = "ok"
            self.understand(op, obj, body)
            return
        error = body.get("error", {})
        inner = (error.get("innererror") or {}).get("code", "")
        code = op["code"] = f"{error.get('code')}/{inner}" if inner else str(error.get("code"))
        if reply.status == 404 and code in ("SecretNotFound", "KeyNotFound"):
            op["result"] = "notfound"
        elif reply.status == 403 and inner in ("SecretDisabled", "KeyDisabled"):
            op["result"] = "disabled"
        elif reply.status == 409 and inner == "ObjectIsDeletedButRecoverable":
            op["result"] = "deleted"
        elif reply.status in (429, 503) and inner != "OutcomeUnknown":
            # "Nothing was changed": a promise, and checked as one.
            op["result"] = "none"
        elif reply.status == 503:
            op["result"] = "unknown"
        else:
            op["result"] = "unknown"
            where = f"op {op['id']} {op['f']} on node{self.node.number}"
            self.recorder.faults.append(f"{where}: {reply.status} {reply.body[:200]!r}")

    def understand(self, op: dict[str, Any], obj: Object, body: dict[str, Any]) -> None:
        f = op["f"]
        if f == "list":
            op["whole"] = not body.get("nextLink")
            op["items"] = []
            for item in body["value"]:
                version = (item.get("id") or item["kid"]).rsplit("/", 1)[1]
                obj.learn(version, item["tags"]["made"])
                op["items"].append(
                    {
                        "version": version,
                        "tag": item["tags"]["op"],
                        "enabled": item["attributes"]["enabled"],
                        "made": item["tags"]["made"],
                    }
                )
            return
        if f == "sign":
            op["out_version"] = body["kid"].rsplit("/", 1)[1]
            signature = base64.urlsafe_b64decode(body["value"] + "==")
            self.recorder.signatures.append((op["id"], op["out_version"], signature))
            return
        if f in ("delete", "recover"):
            obj.deleted = f == "delete"
            return
        key = body.get("key", {})
        version = (key.get("kid") or body["id"]).rsplit("/", 1)[1]
        if f == "patch":
            if version != op["version"]:
                self.recorder.faults.append(f"op {op['id']}: another version was changed: {version}")
            (obj.disabled.discard if op["enabled"] else obj.disabled.add)(version)
            return
        op["out_version"] = version
        made = body["tags"]["made"]
        obj.learn(version, made)
        if f == "set":
            obj.latest = version
            if obj.kind == "key":
                self.recorder.jwks[version] = {"x": key["x"], "y": key["y"]}
        else:
            op["out_tag"], op["out_enabled"] = body["tags"]["op"], body["attributes"]["enabled"]
            op["out_made"] = made
            if not op.get("version"):
                obj.latest = version
            if obj.kind == "secret" and body["value"] != self.recorder.values.get(made):
                self.recorder.faults.append(f"op {op['id']}: value {body['value']!r} is not what {made} wrote")
            known = self.recorder.jwks.setdefault(version, {"x": key["x"], "y": key["y"]}) if key else {}
            if key and (known["x"], known["y"]) != (key["x"], key["y"]):
                self.recorder.faults.append(f"op {op['id']}: version {version} has another public key than before")


class Workload:
    """All clients, until told to stop."""

    def __init__(self, cluster: Cluster, seed: int, clients: int, pause: float):
        self.cluster, self.seed, self.pause = cluster, seed, pause
        self.recorder = Recorder()
        self.objects: list[Object] = []
        self.slots: list[Object] = []
        self.tls = ssl.create_default_context(cafile=str(cluster.secrets / "api-ca.pem"))
        self.clients_wanted = clients
        self.clients: list[Client] = []
        self.token = ""
        self.stopping = asyncio.Event()
        self.chasers: dict[int, Client] = {}
        self.chasing: set[int] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.chased = 0  # answers to chases of acknowledged revocations
        self.kinds = [(vault, kind) for vault in VAULTS for kind in ("secret", "key")]
        for slot in range(len(self.kinds)):
            self.slots.append(self.fresh(slot))

    def fresh(self, slot: int) -> Object:
        vault, kind = self.kinds[slot]
        obj = Object(vault, kind, f"{kind}-{len(self.objects)}")
        self.objects.append(obj)
        return obj

    async def fetch_token(self) -> None:
        node, given = self.cluster.nodes[0], self.cluster.credentials
        form = {
            "client_id": given["client_id"],
            "client_secret": given["client_secret"],
            "grant_type": "client_credentials",
            "scope": f"https://vault.{DOMAIN}:{PORT}/.default",
        }
        connection = Connection((node.ip, PORT), self.tls)
        reply = await connection.request(
            "POST",
            f"login.{DOMAIN}:{PORT}",
            f"/{given['tenant_id']}/oauth2/v2.0/token",
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        connection.close()
        assert reply.status == 200, reply
        self.token = reply.json["access_token"]

    def client(self, node: Node) -> Client:
        client = Client(len(self.clients), node, self.tls, self.token, self.recorder)
        self.clients.append(client)
        return client

    def start(self) -> list[asyncio.Task[None]]:
        nodes = self.cluster.nodes
        self.chasers = {node.number: self.client(node) for node in nodes}
        made = [self.client(nodes[i % len(nodes)]) for i in range(self.clients_wanted)]
        return [asyncio.create_task(self.live(client)) for client in made]

    async def finish(self, clients: list[asyncio.Task[None]]) -> None:
        """Ends all clients and waits for what they have under way."""
        self.stopping.set()
        await asyncio.gather(*clients)
        await asyncio.gather(*self.tasks)

    async def live(self, client: Client) -> None:
        choose = random.Random(f"{self.seed} client {client.number}")
        while not self.stopping.is_set():
            slot = choose.randrange(len(self.slots))
            obj = self.slots[slot]
            if obj.ops >= OPS_PER_OBJECT or obj.sets >= SETS_PER_OBJECT:
                obj = self.slots[slot] = self.fresh(slot)
            op = await self.step(client, obj, choose)
            if op["result"] == "ok" and op["f"] in ("set", "patch", "delete") and choose.random() < 0.5:
                for number in self.chasers.keys() - {client.node.number} - self.chasing:
                    self.chasing.add(number)
                    # Not waited for: the other node may be stopped, and this client's is not.
                    task = asyncio.create_task(self.chase(number, obj, op))
                    self.tasks.add(task)
                    task.add_done_callback(self.tasks.discard)
            # A node that is gone is asked again soon, but not in a busy loop.
            lost = op["result"] in ("none", "unknown")
            await asyncio.sleep(0.1 if lost else choose.random() * 2 * self.pause)

    async def chase(self, number: int, obj: Object, op: dict[str, Any]) -> None:
        """Uses what a write was about through another node, in the moment in which the write was acknowledged."""
        obj.ops += 1
        use = "sign" if obj.kind == "key" else "get"
        seen = await self.chasers[number].do(obj, use, op["version"] if op["f"] == "patch" else "")
        revoked = op["f"] == "delete" or op.get("enabled") is False
        self.chased += revoked and seen["result"] not in ("none", "unknown")
        self.chasing.discard(number)

    async def step(self, client: Client, obj: Object, choose: random.Random) -> dict[str, Any]:
        obj.ops += 1
        x = choose.random()
        if not obj.versions and x < 0.6 or x < 0.06:
            obj.sets += 1
            return await client.do(obj, "set")
        # Revoked for a while, so that uses meet it which no undoing overlaps.
        if obj.deleted and x < 0.12:
            return await client.do(obj, "recover")
        if obj.latest and obj.latest in obj.disabled and x < 0.15:
            return await client.do(obj, "patch", obj.latest, True)
        if obj.versions and x < 0.19:
            version = obj.latest if obj.latest and choose.random() < 0.75 else choose.choice(list(obj.versions))
            return await client.do(obj, "patch", version, version in obj.disabled)
        if x < 0.22:
            return await client.do(obj, "delete")
        if x < 0.30:
            return await client.do(obj, "list")
        version = ""
        if obj.versions and choose.random() < 0.4:
            version = choose.choice(list(obj.versions))
        use = "sign" if obj.kind == "key" and choose.random() < 0.7 else "get"
        return await client.do(obj, use, version)
