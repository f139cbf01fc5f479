"""Real processes of Claviger for the tests, and a bare HTTPS client that sends exactly what it is told to.

Nothing here outlives the run: every process dies with the test runner, waits have an end, and ports, names and data are
the run's own.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from azure.core.pipeline.transport import RequestsTransport

ROOT = Path(__file__).resolve().parents[2]
API_VERSION = "2026-04-01"
OWN_DOMAIN = "kms.localhost"
# Long enough for two busy cores; nothing waits this long when all is well.
PATIENCE = 40.0

NO_DELAY = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]

SEED = int(os.environ.get("CLAVIGER_TEST_SEED", random.SystemRandom().randrange(1 << 32)))


def binary() -> str:
    """The release binary: CLAVIGER_BIN, or where Cargo puts it."""
    given = os.environ.get("CLAVIGER_BIN")
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    path = Path(given) if given else target / "release" / "claviger"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: `make build` makes it, CLAVIGER_BIN names another one")
    return str(path.resolve())


_handed_out: set[int] = set()


def free_port() -> int:
    """A port of loopback below those that the kernel gives to clients, so that a restarted server finds it free."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _handed_out:
                _handed_out.add(port)
                return port


def eventually(what: str, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Asks until the answer is true and returns it. The last error is shown when patience ends."""
    end = time.monotonic() + patience
    error: Exception | None = None
    while time.monotonic() < end:
        try:
            if answer := condition():
                return answer
        except (OSError, http.client.HTTPException, AssertionError, subprocess.SubprocessError, ValueError) as e:
            error = e
        time.sleep(0.02)
    raise AssertionError(f"not within {patience} s: {what}") from error


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass
class Finished:
    """What a command that ended left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def run(*args: str, env: dict[str, str] | None = None, stdin: str = "", patience: float = PATIENCE) -> Finished:
    """Runs `claviger args` to its end."""
    done = subprocess.run(
        [binary(), *args],
        env={**clean_environment(), **(env or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=patience,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def must(*args: str, **kwargs: Any) -> Finished:
    """Runs `claviger args`, which has to succeed."""
    done = run(*args, **kwargs)
    assert done.code == 0, f"claviger {' '.join(args)}: {done.code}\n{done.out}\n{done.err}"
    return done


def clean_environment() -> dict[str, str]:
    """Ours without what steers clients: a test says those itself."""
    steering = ("AZURE_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "KEY_VAULT_NAME", "CLAVIGER_")
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(steering) and k not in bundles}


class Process:
    """A server process with its output in a file; `started` holds every one that lives, for reports of failures."""

    started: list[Process] = []

    def __init__(self, name: str, args: list[str], log: Path, env: dict[str, str] | None = None):
        self.name, self.args, self.log, self.env = name, args, log, env or {}
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()

    def start(self) -> Process:
        assert not self.alive, f"{self.name} runs already"
        self._ready = ready = threading.Event()
        # The kernel ends the child when the test runner is gone, however it went.
        command = ["setpriv", "--pdeathsig", "KILL", "--", binary(), *self.args]
        out = self.log.open("ab")
        self._child = child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=out,
            env={**clean_environment(), **self.env},
        )

        def copy() -> None:
            with out, child.stdout:
                for line in child.stdout:
                    out.write(line)
                    out.flush()
                    if b"ready" in line:
                        ready.set()
            ready.set()

        threading.Thread(target=copy, daemon=True, name=f"log of {self.name}").start()
        Process.started.append(self)
        return self

    def wait_ready(self, patience: float = PATIENCE) -> Process:
        """Waits for the line that says `ready`."""
        answered = self._ready.wait(patience)
        assert answered and self.alive, f"{self.name} did not become ready\n{self.tail()}"
        return self

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.poll()

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def signal(self, number: int) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(PATIENCE)
            self._forget()

    def stop(self, patience: float = 15.0) -> int:
        """Asks the process to end, and makes it end when it does not; returns its exit code."""
        if self._child is None:
            return 0
        if self.alive:
            self._child.send_signal(signal.SIGTERM)
        try:
            return self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(PATIENCE)
            raise AssertionError(f"{self.name} ignored SIGTERM for {patience} s\n{self.tail()}") from None
        finally:
            self._forget()

    def _forget(self) -> None:
        with contextlib.suppress(ValueError):
            Process.started.remove(self)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


class PromptAdapter(requests.adapters.HTTPAdapter):
    """Sends at once. Through a proxy urllib3 would wait for an acknowledgement between headers and body, 40 ms each."""

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, socket_options=NO_DELAY, **kwargs)


# --- places: where a vault can be reached ---------------------------------------------------------------------------


@dataclass
class Place:
    """One address of a service, with an application that may do everything in its vaults."""

    name: str
    authority: str
    vault_suffix: str
    port: int
    tenant: str
    client_id: str
    client_secret: str
    ca: str
    vaults: list[str]
    proxy: str | None = None
    # Where a connection to any of its hosts goes, if names do not lead there.
    address: tuple[str, int] | None = None
    own_domain: bool = False
    _http: Https | None = field(default=None, repr=False)
    _session: requests.Session | None = field(default=None, repr=False)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)

    @property
    def vault(self) -> str:
        return self.vaults[0]

    def host(self, vault: str | None = None) -> str:
        """Host of a vault, with its port when it is not 443."""
        port = "" if self.port == 443 else f":{self.port}"
        return f"{vault or self.vault}.{self.vault_suffix}{port}"

    def url(self, vault: str | None = None) -> str:
        return f"https://{self.host(vault)}"

    @property
    def resource(self) -> str:
        return "https://" + self.host("x").split(".", 1)[1]

    @property
    def login_host(self) -> str:
        return urlsplit(self.authority).netloc

    def sdk(self) -> dict[str, Any]:
        """Keyword arguments of SDK clients and credentials. Challenge verification stays on."""
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False
            self._session.mount("https://", PromptAdapter())
        settings: dict[str, Any] = {
            "transport": RequestsTransport(session=self._session, session_owner=False, connection_verify=self.ca)
        }
        if self.proxy:
            settings["proxies"] = {"https": self.proxy}
        return settings

    def credential_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ClientSecretCredential."""
        return {
            "tenant_id": self.tenant,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "authority": self.authority,
            # No SDK knows the authority of one's own domain (contract, identity.md section 6).
            "disable_instance_discovery": self.own_domain,
            **self.sdk(),
        }

    @property
    def http(self) -> Https:
        if self._http is None:
            self._http = self.new_http()
        return self._http

    def new_http(self, timeout: float = 30.0, *, repeat: bool = True) -> Https:
        proxy = None if self.address else self.proxy
        return Https(self.ca, proxy, self.address, timeout, repeat=repeat)

    def credentials(self) -> dict[str, str]:
        return {"tenant_id": self.tenant, "client_id": self.client_id, "client_secret": self.client_secret}

    def claims(self) -> dict[str, Any]:
        """What the token says."""
        return json.loads(unb64url(self.token().split(".")[1]))

    def token(self, resource: str | None = None, login_host: str | None = None) -> str:
        """An access token, kept for its lifetime."""
        resource, login_host = resource or self.resource, login_host or self.login_host
        token, until = self._tokens.get(f"{login_host} {resource}", ("", 0.0))
        if time.time() > until:
            form = {
                "client_id": self.client_id,
                "client_secret": self.client_secret,
                "grant_type": "client_credentials",
                "scope": f"{resource}/.default",
            }
            reply = self.http.request(
                "POST",
                login_host,
                f"/{self.tenant}/oauth2/v2.0/token",
                urlencode(form).encode(),
                {"Content-Type": "application/x-www-form-urlencoded"},
            )
            assert reply.status == 200, reply
            token, until = reply.json["access_token"], time.time() + int(reply.json["expires_in"]) - 300
            self._tokens[f"{login_host} {resource}"] = token, until
        return token

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        vault: str | None = None,
        version: str | None = API_VERSION,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """A data-plane request with a full token."""
        target = path
        if version is not None:
            target += ("&" if "?" in path else "?") + f"api-version={version}"
        all_headers = {"Authorization": f"Bearer {token or self.token()}", **(headers or {})}
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        if data is not None:
            all_headers.setdefault("Content-Type", "application/json")
        return self.http.request(method, self.host(vault), target, data, all_headers)

    def ok(self, *args: Any, **kwargs: Any) -> Any:
        """The JSON of a request that has to succeed."""
        reply = self.call(*args, **kwargs)
        assert reply.status in (200, 204), f"{args}: {reply}"
        return reply.json if reply.body else None


# --- HTTPS as it is --------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class Https:
    """Connections that are kept alive, one per host and thread. Paths and headers go out byte for byte."""

    def __init__(
        self,
        ca: str,
        proxy: str | None = None,
        address: tuple[str, int] | None = None,
        timeout: float = 30.0,
        *,
        repeat: bool = True,
    ):
        self._context = ssl.create_default_context(cafile=ca)
        self._proxy, self._address, self._timeout, self._repeat = proxy, address, timeout, repeat
        self._local = threading.local()

    def _connections(self) -> dict[str, http.client.HTTPSConnection]:
        if not hasattr(self._local, "connections"):
            self._local.connections = {}
        return self._local.connections

    def _connect(self, host: str) -> http.client.HTTPSConnection:
        name, _, port = host.partition(":")
        if self._proxy is None:
            direct = http.client.HTTPSConnection(name, int(port or 443), context=self._context, timeout=self._timeout)
            if self._address:
                direct._create_connection = lambda _, *rest, to=self._address: socket.create_connection(to, *rest)
            return direct
        proxy = urlsplit(self._proxy)
        connection = http.client.HTTPSConnection(
            proxy.hostname, proxy.port, context=self._context, timeout=self._timeout
        )
        headers = {}
        if proxy.username is not None:
            pair = f"{proxy.username}:{proxy.password or ''}".encode()
            headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair).decode()
        connection.set_tunnel(name, int(port or 443), headers)
        return connection

    def request(
        self, method: str, host: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        connections = self._connections()
        kept = host in connections
        connection = connections.pop(host, None) or self._connect(host)
        try:
            reply = self._exchange(connection, method, host, target, body, headers or {})
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            connection.close()
            # The server may close a connection that lay idle; on a fresh one it has no excuse.
            if not (kept and self._repeat):
                raise
            connection = self._connect(host)
            reply = self._exchange(connection, method, host, target, body, headers or {})
        except BaseException:
            connection.close()
            raise
        connections[host] = connection
        return reply

    @staticmethod
    def _exchange(
        connection: http.client.HTTPSConnection,
        method: str,
        host: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Reply:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        names = {name.lower() for name in headers}
        if "host" not in names:
            connection.putheader("Host", host)
        framed = "content-length" in names or "transfer-encoding" in names
        if not framed and (body is not None or method not in ("GET", "HEAD")):
            connection.putheader("Content-Length", str(len(body or b"")))
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body)
        except (BrokenPipeError, ConnectionResetError):
            # A server may refuse a large body before it has read it; then the answer is there already.
            if not body or len(body) < 100_000:
                raise
        answer = connection.getresponse()
        return Reply(answer.status, answer.getheaders(), answer.read())

    def close(self) -> None:
        for connection in self._connections().values():
            connection.close()
        self._connections().clear()


# --- one node, nothing to configure ---------------------------------------------------------------------------------


class Dev:
    """`claviger dev` on a directory of its own."""

    def __init__(
        self,
        directory: Path,
        vaults: tuple[str, ...] = ("demo",),
        port: int | None = None,
        options: tuple[str, ...] = (),
    ):
        self.directory, self.vaults, self.port = directory, vaults, port or free_port()
        args = ["dev", "--data-dir", str(directory), "--listen", f"127.0.0.1:{self.port}", *options]
        for vault in vaults:
            args += ["--vault", vault]
        self.process = Process(f"dev-{directory.name}", args, directory.parent / f"{directory.name}.log")

    def start(self) -> Dev:
        self.process.start().wait_ready()
        return self

    def environment(self) -> dict[str, str]:
        """What `claviger exec` gives to a program, beyond what it found."""
        done = must("exec", "--data-dir", str(self.directory), "--", "env", "-0")
        pairs = dict(pair.split("=", 1) for pair in done.out.split("\0") if pair)
        before = clean_environment()
        return {k: v for k, v in pairs.items() if before.get(k) != v}

    def admin_get(self, path: str) -> bytes:
        """A plain request to the port for health and metrics."""
        host, port = json.loads((self.directory / "run.json").read_text())["admin"].rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.read()

    def place(self) -> Place:
        env = self.environment()
        return Place(
            name="dev",
            authority="https://login.microsoftonline.com",
            vault_suffix="vault.azure.net",
            port=443,
            tenant=env["AZURE_TENANT_ID"],
            client_id=env["AZURE_CLIENT_ID"],
            client_secret=env["AZURE_CLIENT_SECRET"],
            ca=env["REQUESTS_CA_BUNDLE"],
            vaults=list(self.vaults),
            proxy=env["HTTPS_PROXY"],
        )


@contextlib.contextmanager
def dev_server(
    directory: Path, vaults: tuple[str, ...] = ("demo",), options: tuple[str, ...] = ()
) -> Iterator[Dev]:
    dev = Dev(directory, vaults, options=options)
    try:
        yield dev.start()
    finally:
        dev.process.kill()


# --- a cluster --------------------------------------------------------------------------------------------------------


class Connector:
    """A CONNECT endpoint that leads every name to one node, as a balancer with a single back end would."""

    def __init__(self, target: tuple[str, int]):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True, name=f"connector to {target[1]}").start()

    def _reach(self) -> socket.socket:
        """A connection to where it leads now."""
        return socket.create_connection(self._target, 10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (chunk := client.recv(4096)) or len(head) > 16_384:
                    return
                head += chunk
            try:
                node = self._reach()
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with node:
                node.settimeout(None)
                for end in (client, node):
                    end.setsockopt(*NO_DELAY[0])
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=self._pump, args=(node, client), daemon=True)
                back.start()
                self._pump(client, node)
                back.join()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


class Balancer(Connector):
    """A CONNECT endpoint that leads to the nodes that say they are ready, one after the other, and passes bytes. Like any
    balancer of connections it goes on to the next node when one refuses, and leaves alone what is connected."""

    INTERVAL = 0.1  # seconds between two health checks of a node

    def __init__(self, nodes: list[Node]):
        self._nodes, self._ready, self._turn = nodes, dict.fromkeys(nodes, False), itertools.count()
        self._stop = threading.Event()
        super().__init__(("balancer", 0))
        for node in nodes:
            threading.Thread(target=self._check, args=(node,), daemon=True, name=f"health of {node.name}").start()

    def _check(self, node: Node) -> None:
        while not self._stop.wait(self.INTERVAL):
            try:
                self._ready[node] = node.ready()
            except (OSError, http.client.HTTPException):
                self._ready[node] = False

    def ready(self) -> list[Node]:
        return [node for node in self._nodes if self._ready[node]]

    def _reach(self) -> socket.socket:
        nodes, turn = self.ready(), next(self._turn)
        for place in range(len(nodes)):
            with contextlib.suppress(OSError):
                return socket.create_connection(("127.0.0.1", nodes[(turn + place) % len(nodes)].api), 10)
        raise ConnectionRefusedError("no node is ready")

    def close(self) -> None:
        self._stop.set()
        super().close()


class Node:
    """One node: its configuration file and its process."""

    def __init__(self, cluster: Cluster, number: int, name: str, settings: str = ""):
        self.cluster, self.number, self.name = cluster, number, name
        self.api, self.peer, self.admin = free_port(), free_port(), free_port()
        self.settings = settings
        self.data = cluster.directory / f"data-{number}"
        self.config = cluster.directory / f"node-{number}.toml"
        log = cluster.directory / f"node-{number}.log"
        self.process = Process(f"node{number}", ["server", "--config", str(self.config)], log)
        self.connector = Connector(("127.0.0.1", self.api))

    def write_config(self, seeds: list[Node]) -> None:
        secrets = self.cluster.secrets
        addresses = ", ".join(f'"127.0.0.1:{node.peer}"' for node in seeds)
        self.config.write_text(
            f"""
[node]
id = {self.number}
name = "{self.name}"
data_dir = "{self.data}"
[world]
file = "{secrets}/world.key"
[api]
listen = "127.0.0.1:{self.api}"
domain = "{OWN_DOMAIN}"
public_port = {self.cluster.public_port}
certificate = "{secrets}/api.pem"
key = "{secrets}/api.key"
[peer]
listen = "127.0.0.1:{self.peer}"
advertise = "127.0.0.1:{self.peer}"
ca = "{secrets}/peer-ca.pem"
certificate = "{secrets}/{self.name}.pem"
key = "{secrets}/{self.name}.key"
seeds = [{addresses}]
[admin]
listen = "127.0.0.1:{self.admin}"
{self.settings}
"""
        )

    def admin_get(self, path: str) -> tuple[int, str]:
        """A plain request to the admin port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """What it tells now, by name and labels."""
        status, text = self.admin_get("/metrics")
        assert status == 200, text
        samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def has_lease(self) -> bool:
        return self.metrics()["claviger_lease_valid"] == 1

    def leads(self) -> bool:
        return self.metrics().get('claviger_raft_role{role="leader"}') == 1

    def up(self) -> bool:
        return self.admin_get("/healthz/live")[0] == 200

    def ready(self) -> bool:
        return self.admin_get("/healthz/ready")[0] == 200

    def start(self) -> Node:
        self.process.start()
        eventually(f"{self.process.name} answers", lambda: self.process.alive and self.up())
        return self

    def status(self) -> Any:
        """What `claviger cluster status` says when this node is asked."""
        return must("cluster", "status", "--config", str(self.config), "--json", patience=15).json()

    def own_status(self) -> dict[str, Any]:
        """What this node says of itself."""
        mine = next(node for node in self.status()["nodes"] if node["id"] == self.number)
        assert mine["reachable"], mine
        return mine["status"]


class Cluster:
    """A world, its nodes, and the first application's credentials."""

    def __init__(self, directory: Path, settings: str = ""):
        self.directory, self.settings = directory, settings
        self.secrets = directory / "secrets"
        self.public_port = free_port()
        must(
            *("world", "init", "--out", str(self.secrets), "--region", "local", "--domain", OWN_DOMAIN),
            *("--node", "node1", "--node", "node2", "--node", "node3"),
        )
        self.nodes = [Node(self, number, f"node{number}", settings) for number in (1, 2, 3)]
        for node in self.nodes:
            node.write_config(self.nodes)
        self.credentials: dict[str, Any] = {}
        self._places: dict[tuple[int, str], Place] = {}

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        first, *rest = self.nodes
        self.credentials = must("cluster", "init", "--config", str(first.config)).json()
        for node in rest:
            must("cluster", "join", "--config", str(node.config))
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        for node in self.nodes:
            eventually(f"{node.process.name} is ready", node.ready)

    def places(self) -> list[Place]:
        return [self.place(node) for node in self.nodes]

    def place(self, node: Node, application: dict[str, str] | None = None) -> Place:
        """The service through one node, for the first application unless another is given.

        All nodes share names and public port, as behind a balancer.
        """
        application = {**self.credentials, **(application or {})}
        key = (node.number, application["client_id"])
        if key not in self._places:
            self._places[key] = Place(
                name=f"node{node.number}-{self.public_port}-{application['client_id']}",
                authority=f"https://login.{OWN_DOMAIN}:{self.public_port}",
                vault_suffix=f"vault.{OWN_DOMAIN}",
                port=self.public_port,
                tenant=application["tenant_id"],
                client_id=application["client_id"],
                client_secret=application["client_secret"],
                ca=str(self.secrets / "api-ca.pem"),
                vaults=list(self.credentials["vaults"]),
                proxy=node.connector.url,
                address=("127.0.0.1", node.api),
                own_domain=True,
            )
        return self._places[key]

    def kill(self) -> None:
        for node in self.nodes:
            node.process.kill()
            node.connector.close()


@contextlib.contextmanager
def cluster(directory: Path, settings: str = "") -> Iterator[Cluster]:
    """Three nodes, made and joined."""
    made = Cluster(directory, settings)
    try:
        yield made.start()
    finally:
        made.kill()
