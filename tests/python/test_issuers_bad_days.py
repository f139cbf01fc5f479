"""Issuers that are not as they should be: away, slow, wrong, or with other keys than a moment ago. Who asks, and who waits,
is in crates/api/src/issuers.rs; the clients and the claims are in test_issuers.py."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.identity import DefaultAzureCredential
from azure.keyvault.secrets import SecretClient

import harness
from harness import Dev, Place, Reply, eventually
from test_issuers import EXCHANGE, OURS, Issuer, exchange, own_application, refused, trust

# Seconds that a fetch of keys may take, and what a busy machine adds.
FETCH, SLACK = 5, 10

BAD = ("silent", "failing", "elsewhere", "endless", "broken", "empty", "gone")


class Web:
    """The web server of an issuer, on one of its days."""

    def __init__(self, issuer: Issuer, day: str = "good"):
        self.issuer, self.day, self.asked = issuer, day, 0
        self.keys: list[dict[str, Any]] = issuer.jwks()["keys"]
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        if day == "gone":
            self.close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        status, body, headers = 200, json.dumps({"keys": self.keys}).encode(), {}
        match self.day:
            case "silent":
                self.released.wait(60)
                return
            case "slow":
                self.released.wait(60)
            case "failing":
                status = 500
            case "elsewhere" if handler.path == "/keys":
                # A good set lies at the end of the redirection.
                status, headers = 302, {"Location": self.url + "/moved"}
            case "endless":
                body = b" " * 300_000 + body
            case "broken":
                body = b"<html>"
            case "empty":
                body = b'{"keys": []}'
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def table(web: Web, more: str = "") -> str:
    return f'[[issuers]]\nissuer = "{web.issuer.issuer}"\njwks = "{web.url}"\n{more}\n'


def start(directory: Path, tables: str) -> Dev:
    (directory / "issuers.toml").write_text(tables)
    # A vault's name of its own: SDKs keep what a host has said about its tenant for as long as the process lives.
    return Dev(directory / "data", ("bad-days",), options=("--issuers", str(directory / "issuers.toml"))).start()


class Scene:
    """A dev server that knows an issuer on a good day, which is looked at every second, and the others."""

    def __init__(self, directory: Path):
        self.good = Web(Issuer("good"))
        self.bad = {day: Web(Issuer(day), day) for day in BAD}
        self.dev = start(directory, table(self.good, "refresh_seconds = 1") + "".join(map(table, self.bad.values())))
        self.place: Place = self.dev.place()
        application, self.client, _ = own_application(self.place, "robot")
        for number, web in enumerate([self.good, *self.bad.values()]):
            trust(self.place, application, f"c{number}", web.issuer.issuer)

    def ask(self, token: str) -> Reply:
        return exchange(self.place, self.client, token)

    def close(self) -> None:
        self.dev.process.kill()
        for web in [self.good, *(web for day, web in self.bad.items() if day != "gone")]:
            web.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("bad-days"))
    yield made
    made.close()


def test_a_key_comes_and_goes_with_the_set(scene: Scene) -> None:
    web, issuer = scene.good, scene.good.issuer
    assert scene.ask(issuer.token()).status == 200
    later = Issuer("good")
    later.kids = {alg: f"later-{kid}" for alg, kid in later.kids.items()}
    web.keys = [*issuer.jwks()["keys"], *later.jwks()["keys"]]
    eventually("the new key is known", lambda: scene.ask(later.token()).status == 200)
    web.keys = issuer.jwks()["keys"]
    eventually("the old one is forgotten", lambda: scene.ask(later.token()).status == 401)
    refused(scene.ask(later.token()), 700027)
    assert scene.ask(issuer.token()).status == 200
    # Rubbish has the issuer asked once in its time, not once per token.
    before, began = web.asked, time.monotonic()
    for number in range(200):
        refused(scene.ask(issuer.token(head={"kid": f"guess-{number}"})), 700027)
    assert web.asked - before <= 2 + (time.monotonic() - began)


@pytest.mark.parametrize("day", BAD)
def test_without_keys_there_is_a_clear_error_in_bounded_time(scene: Scene, day: str) -> None:
    web, began = scene.bad[day], time.monotonic()
    for _ in range(2):
        reply = scene.ask(web.issuer.token())
        assert (reply.status, reply.json["error_codes"]) == (503, [50166]), reply
        assert reply.json["error"] == "temporarily_unavailable", reply
        assert web.issuer.issuer in reply.json["error_description"], reply
    assert time.monotonic() - began < FETCH + SLACK
    assert web.asked == (0 if day == "gone" else 1), "once for both, and nowhere else"
    # What is wrong is the operator's to know, and the others are not held up.
    eventually("the log names it", lambda: f"https://{day}.example.com" in scene.dev.process.text())
    assert scene.ask(scene.good.issuer.token()).status == 200


def test_nobody_waits_for_somebody_elses_issuer(tmp_path: Path) -> None:
    """There is a worker per core: were silent issuers waited for there, all of them would stand still."""
    webs = [Web(Issuer(f"silent-{n}"), "silent") for n in range(8)]
    dev = start(tmp_path, "".join(table(web, f'audience = "{OURS}"') for web in webs))
    try:
        place = dev.place()
        place.token()

        def knock(web: Web) -> Reply:
            headers = {"Authorization": f"Bearer {web.issuer.token(aud=OURS)}"}
            path = f"/secrets?api-version={harness.API_VERSION}"
            return place.new_http().request("GET", place.host(), path, None, headers)

        with ThreadPoolExecutor(len(webs)) as pool:
            knocks = [pool.submit(knock, web) for web in webs]
            eventually("all are asked", lambda: all(web.asked for web in webs), FETCH - 1)
            assert place.call("GET", "/secrets").status == 200
            assert not any(knocked.done() for knocked in knocks), "answered while all of them are waited for"
            for knocked in knocks:
                reply = knocked.result(FETCH + SLACK)
                assert (reply.status, "AKV10005" in reply.error["message"]) == (503, True), reply
                # No other token would help.
                assert reply.header("www-authenticate") is None
    finally:
        dev.process.kill()
        for web in webs:
            web.close()


def test_keys_are_kept_whose_request_is_given_up(tmp_path: Path, name: str) -> None:
    """A client that waits less than its issuer takes does not leave the next one without keys."""
    web = Web(Issuer("slow"), "slow")
    dev = start(tmp_path, table(web))
    try:
        place = dev.place()
        application, client, _ = own_application(place, name)
        trust(place, application, "ci", web.issuer.issuer)
        hasty = replace(place, _http=place.new_http(1.0, repeat=False))
        with pytest.raises(TimeoutError):
            exchange(hasty, client, web.issuer.token())
        assert web.asked == 1
        web.released.set()
        assert exchange(place, client, web.issuer.token()).status == 200
        assert web.asked == 1, "by the fetch that nobody waited for any more"
    finally:
        dev.process.kill()
        web.close()


def test_a_workload_identity_is_the_default_credential(
    scene: Scene, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(scene.good.issuer.token(aud=EXCHANGE))
    for variable, value in {
        "AZURE_TENANT_ID": scene.place.tenant,
        "AZURE_CLIENT_ID": scene.client,
        "AZURE_AUTHORITY_HOST": scene.place.authority,
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
        "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("AZURE_CLIENT_SECRET", raising=False)
    with (
        DefaultAzureCredential(**scene.place.sdk()) as credential,
        SecretClient(scene.place.url(), credential, **scene.place.sdk()) as client,
    ):
        client.set_secret(name, "v")
        assert client.get_secret(name).value == "v"
