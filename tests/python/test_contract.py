"""The wire contract as tables: `contract/*.json` has one row per situation, `contract/golden/*.json` what came back.

A row says what is asked and what the contract fixes of the answer: status, code, inner code, message, single members.
The golden file pins the rest, with what differs from run to run replaced. `UPDATE_GOLDEN=1` writes the golden files
anew; what a row says itself is checked all the same. Rows do not depend on each other: `{n}` is a name of their own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

import harness
from forge import Forge
from harness import API_VERSION, Place, Reply, unb64url

HERE = Path(__file__).parent / "contract"
GOLDEN = HERE / "golden"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"

TABLES: dict[str, list[dict[str, Any]]] = {p.stem: json.loads(p.read_text()) for p in sorted(HERE.glob("*.json"))}
ROWS = [(table, row) for table, rows in TABLES.items() for row in rows]

GUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z"
TIMES = {"created", "updated", "deletedDate", "scheduledPurgeDate"}
MATERIAL = {"n", "x", "y", "iv", "tag"}

# What every answer of the data plane carries (contract section 3).
ALWAYS = {
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Expires": "-1",
    "x-ms-request-id": GUID,
    "x-ms-keyvault-region": "[a-z0-9-]+",
    "x-ms-keyvault-service-version": r"\d+(\.\d+)+",
    "x-ms-keyvault-network-info": r"conn_type=Ipv[46];addr=[0-9a-f.:]+;act_addr_fam=\w+;",
    "Strict-Transport-Security": "max-age=31536000;includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}


# --- the server and what rows stand on --------------------------------------------------------------------------------


class Stage:
    """A server of this suite's own, and keys that rows share because they are slow to make."""

    def __init__(self, place: Place, stranger: Place):
        self.place = place
        self.forge = Forge(place, stranger)
        self.shared: dict[str, dict[str, Any]] = {}
        for name, body in {
            "rsa": {"kty": "RSA"},
            "ec": {"kty": "EC", "crv": "P-256"},
            "p256k": {"kty": "EC", "crv": "P-256K"},
        }.items():
            self.shared[name] = place.ok("POST", f"/keys/shared-{name}/create", body)
        path = "/keys/shared-rsa"
        alg = {"alg": "RSA-OAEP-256", "value": "c2FsdA"}
        self.words = {
            "ciphertext": place.ok("POST", f"{path}/encrypt", alg)["value"],
            "wrapped": place.ok("POST", f"{path}/wrapkey", alg)["value"],
            "signature": place.ok("POST", f"{path}/sign", {"alg": "RS256", "value": "A" * 43})["value"],
            "tid": place.tenant,
            "cid": place.client_id,
            "secret": place.client_secret,
            "basic": base64.b64encode(f"{place.client_id}:{place.client_secret}".encode()).decode(),
            "url": place.url(),
        }

    def clear(self, vault: str) -> None:
        """Empties a vault that list rows look at."""
        for kind in ("keys", "secrets"):
            for item in self.place.ok("GET", f"/{kind}", vault=vault)["value"]:
                name = (item.get("kid") or item["id"]).rsplit("/", 1)[1]
                self.place.ok("DELETE", f"/{kind}/{name}", vault=vault)
            for item in self.place.ok("GET", f"/deleted{kind}", vault=vault)["value"]:
                self.place.ok("DELETE", urlsplit(item["recoveryId"]).path, vault=vault)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("contract")
    with (
        harness.dev_server(directory / "data", ("demo", "second", "lists")) as dev,
        harness.dev_server(directory / "stranger") as stranger,
    ):
        yield Stage(dev.place(), stranger.place())


# --- rows ------------------------------------------------------------------------------------------------------------


class Row:
    """One row being played."""

    def __init__(self, stage: Stage, row: dict[str, Any]):
        self.stage, self.place, self.row = stage, stage.place, row
        self.name = row.get("named") or "row-" + uuid.uuid4().hex[:12]
        self.given: list[Any] = []

    def fill(self, value: Any) -> Any:
        """Puts values in the place of `{words}`, and expands `$repeat`."""
        if isinstance(value, str):
            return re.sub(r"\{([a-z0-9-]+(?:\.[a-zA-Z0-9]+)*)\}", lambda m: self.word(m[1]), value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            if set(value) == {"$repeat"}:
                return value["$repeat"][0] * value["$repeat"][1]
            if set(value) == {"$tags"}:
                return {f"tag{i:02}": "v" for i in range(value["$tags"])}
            return {self.fill(k): self.fill(v) for k, v in value.items()}
        return value

    def word(self, word: str) -> str:
        head, _, tail = word.partition(".")
        if word == "n":
            return self.name
        if word in self.stage.words:
            return self.stage.words[word]
        if head in self.stage.shared:
            kid = self.stage.shared[head]["key"]["kid"]
            return {"": f"shared-{head}", "ver": kid.rsplit("/", 1)[1], "kid": kid}[tail]
        if head.isdigit():
            return self.from_given(self.given[int(head)], tail)
        raise KeyError(f"{word} in row {self.row['name']}")

    @staticmethod
    def from_given(answer: Any, tail: str) -> str:
        if tail == "ver":
            return (answer["key"]["kid"] if "key" in answer else answer["id"]).rsplit("/", 1)[1]
        if tail == "next":
            parts = urlsplit(answer["nextLink"])
            return f"{parts.path}?{parts.query}"
        for member in tail.split("."):
            answer = answer[member]
        return str(answer)

    def host(self) -> str:
        match self.row.get("host", "vault"):
            case "vault":
                return self.place.host(self.row.get("vault"))
            case "login":
                return self.place.login_host
            case other:
                return other

    def send(self) -> Reply:
        row = self.row
        method, target = self.fill(row["request"]).split(" ", 1)
        version = row.get("version", API_VERSION)
        if row.get("host", "vault") == "vault" and version is not None and "api-version=" not in target:
            target += ("&" if "?" in target else "?") + f"api-version={version}"
        headers = {"x-ms-client-request-id": str(uuid.uuid4())} if row.get("host", "vault") == "vault" else {}
        if row.get("host", "vault") == "vault":
            headers |= self.stage.forge.headers(row.get("as", "full"))
        body = None
        if "body" in row:
            headers["Content-Type"] = "application/json"
            body = json.dumps(self.fill(row["body"])).encode()
        elif "raw" in row:
            headers["Content-Type"] = "application/json"
            body = self.fill(row["raw"]).encode("latin-1")
        elif "form" in row:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(self.fill(row["form"])).encode()
        headers |= self.fill(row.get("headers", {}))
        self.sent = headers
        return self.place.http.request(method, self.host(), target, body, headers)

    def prepare(self) -> None:
        if vault := self.row.get("clear"):
            self.stage.clear(vault)
        for method_and_path, *body in self.row.get("given", []):
            method, path = self.fill(method_and_path).split(" ", 1)
            sent = self.fill(body[0]) if body else None
            self.given.append(self.place.ok(method, path, sent, vault=self.row.get("vault")))

    def state(self) -> list[Any]:
        """All there is under the row's name: what a refusal must not change."""
        seen = []
        for kind in ("keys", "secrets"):
            for path in (f"/{kind}/{self.name}/versions", f"/deleted{kind}/{self.name}"):
                reply = self.place.call("GET", path, vault=self.row.get("vault"))
                seen.append((reply.status, reply.body))
        return seen

    # --- what came back

    def normal(self, value: Any, member: str = "", inside: str = "") -> Any:
        if isinstance(value, dict):
            return {self.text(k): self.normal(v, k, member) for k, v in value.items()}
        if isinstance(value, list):
            return [self.normal(item, "", member) for item in value]
        if member in TIMES and isinstance(value, int) and not isinstance(value, bool):
            assert abs(value - harness.time.time()) < 100 * 86_400, f"{member} is {value}"
            return "{time}"
        if not isinstance(value, str):
            return value
        hidden = member == "value" and self.row.get("hide") == "value"
        if hidden or (member in MATERIAL and inside in ("key", "")):
            return f"{{{len(unb64url(value))} bytes}}"
        if member == "value" and self.row.get("hide") == "blob":
            assert len(unb64url(value)) > 50
            return "{blob}"
        if member in ("access_token", "x5t", "kid", "expires_on", "not_before") and "/" not in value:
            return "{" + member + "}"
        if inside == "x5c":
            return "{certificate}"
        return self.text(value)

    def text(self, text: str) -> str:
        if len(text) > 1000:
            return f"{{{len(text)} characters}}"
        for known, label in (
            (self.name, "{n}"),
            (self.place.tenant, "{tid}"),
            (self.stage.forge.oid, "{oid}"),
            (self.place.client_id, "{cid}"),
        ):
            text = text.replace(known, label)
        text = re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "{ver}", text)
        text = re.sub(r"(skiptoken=)[^&]+", r"\1{token}", text)
        text = re.sub(STAMP, "{stamp}", text)
        return re.sub(GUID, "{guid}", text)

    def golden(self, reply: Reply) -> dict[str, Any]:
        seen: dict[str, Any] = {"status": reply.status}
        noteworthy = ("WWW-Authenticate", "Retry-After", "Location", "Allow")
        if headers := {h: self.text(v) for h in noteworthy if (v := reply.header(h)) is not None}:
            seen["headers"] = headers
        if reply.body:
            seen["body"] = self.normal(reply.json)
        return seen


def member_of(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


@pytest.fixture(scope="module")
def fresh() -> Iterator[dict[str, dict[str, Any]]]:
    """Golden answers of this run, written at its end when asked to."""
    seen: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    yield seen
    if UPDATE:
        GOLDEN.mkdir(exist_ok=True)
        for table, answers in seen.items():
            path = GOLDEN / f"{table}.json"
            old = json.loads(path.read_text()) if path.exists() else {}
            rows = [row["name"] for row in TABLES[table]]
            merged = {name: answers.get(name, old.get(name)) for name in rows}
            lines = [
                f"{json.dumps(n, ensure_ascii=False)}: {json.dumps(a, ensure_ascii=False)}" for n, a in merged.items()
            ]
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def load_golden(table: str) -> dict[str, Any]:
    path = GOLDEN / f"{table}.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table}: {row['name']}" for table, row in ROWS])
def test_row(stage: Stage, fresh: dict[str, dict[str, Any]], table: str, row: dict[str, Any]) -> None:
    play = Row(stage, row)
    play.prepare()
    watched = not row["request"].startswith("GET") and row.get("host", "vault") == "vault" and not row.get("named")
    before = play.state() if watched else None
    reply = play.send()

    allowed = row["status"] if isinstance(row["status"], list) else [row["status"]]
    assert reply.status in allowed, reply
    check_headers(play, reply)
    if "code" in row:
        error = reply.error
        assert error["code"] == row["code"], error
        assert error.get("innererror", {}).get("code") == row.get("inner"), error
        assert set(error) <= {"code", "message", "innererror"}
        if "message" in row:
            assert error["message"] == play.fill(row["message"])
    for path, wanted in row.get("equal", {}).items():
        got = member_of(reply.json, path)
        filled = play.fill(wanted)
        assert (str(got) if filled != wanted else got) == filled, path
    for path in row.get("absent", []):
        assert member_of(reply.json, path) is None, path
    check_bundle(reply)
    if before is not None and reply.status >= 400:
        assert play.state() == before, "a refusal changed something"

    seen = play.golden(reply)
    fresh[table][row["name"]] = seen
    if not UPDATE:
        wanted = load_golden(table).get(row["name"])
        assert wanted is not None, f"no golden answer yet: UPDATE_GOLDEN=1 writes one: {seen}"
        # Compared as text, for the order of members is part of it.
        assert json.dumps(seen, indent=1) == json.dumps(wanted, indent=1)


def check_headers(play: Row, reply: Reply) -> None:
    if play.row.get("host", "vault") == "vault":
        for header, pattern in ALWAYS.items():
            value = reply.header(header)
            assert value is not None and re.fullmatch(pattern, value), f"{header}: {value}"
        assert reply.header("x-ms-client-request-id") == play.sent["x-ms-client-request-id"]
        names = [name.lower() for name, _ in reply.headers]
        assert len(names) == len(set(names)), "a header twice"
    if reply.status == 204:
        assert not reply.body
    elif play.row.get("host", "vault") == "vault":
        assert reply.header("Content-Type") == "application/json; charset=utf-8"
    if reply.status == 401 and play.row.get("host", "vault") == "vault":
        challenge = f'Bearer authorization="https://login.microsoftonline.com/{play.place.tenant}", '
        challenge += 'resource="https://vault.azure.net"'
        assert reply.header("WWW-Authenticate") == challenge
    # Python repeats any request whose refusal carries it (contract section 15).
    if 400 <= reply.status < 500 and reply.status != 429:
        assert reply.header("Retry-After") is None


def check_bundle(reply: Reply) -> None:
    """What holds for any object, wherever it is shown."""
    if not reply.body or reply.status != 200:
        return
    body = reply.json
    for item in body["value"] if isinstance(body.get("value"), list) else [body]:
        if "scheduledPurgeDate" in item:
            days = item["attributes"].get("recoverableDays", 90)
            assert item["scheduledPurgeDate"] - item["deletedDate"] == days * 86_400
        if "key" in item:
            assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(item["key"])


VERSIONS = [
    *("2016-10-01", "7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"),
    *("7.2-preview", "7.3-preview", "7.4-preview.1", "7.5-preview.1", "7.6-preview.1", "7.6-preview.2"),
    *("2025-06-01-preview", "2026-01-01-preview", "2026-03-01-preview"),
]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_the_interface(stage: Stage, version: str) -> None:
    """Every version that a client is known to send is taken, and links keep it (contract section 1)."""
    name = "v-" + uuid.uuid4().hex[:12]
    for _ in range(2):
        stage.place.ok("PUT", f"/secrets/{name}", {"value": "v"}, version=version)
    page = stage.place.ok("GET", f"/secrets/{name}/versions?maxresults=1", version=version)
    assert f"api-version={version}&" in page["nextLink"]
    assert page["nextLink"].startswith(f"https://{stage.place.host()}:443/secrets/{name}/versions?")
    made = stage.place.ok("POST", f"/keys/{name}/create", {"kty": "EC"}, version=version)["attributes"]
    old = version in ("2016-10-01", "7.0")
    assert ("recoverableDays" in made) == (not old)
    assert ("hsmPlatform" in made) == (version >= "7.5" or version.startswith("202"))


# --- the tables cover the contract -----------------------------------------------------------------------------------

V = "(/[^/]*)?"
OPERATIONS = {
    "key create": "POST /keys/N/create",
    "key import": "PUT /keys/N",
    "key rotate": "POST /keys/N/rotate",
    "key update": f"PATCH /keys/N{V}",
    "key get": f"GET /keys/N{V}",
    "key list": "GET /keys",
    "key versions": "GET /keys/N/versions",
    "key delete": "DELETE /keys/N",
    "key backup": "POST /keys/N/backup",
    "key restore": "POST /keys/restore",
    "key encrypt": f"POST /keys/N{V}/encrypt",
    "key decrypt": f"POST /keys/N{V}/decrypt",
    "key wrap": f"POST /keys/N{V}/wrapkey",
    "key unwrap": f"POST /keys/N{V}/unwrapkey",
    "key sign": f"POST /keys/N{V}/sign",
    "key verify": f"POST /keys/N{V}/verify",
    "rotation policy get": "GET /keys/N/rotationpolicy",
    "rotation policy put": "PUT /keys/N/rotationpolicy",
    "deleted key get": "GET /deletedkeys/N",
    "deleted key list": "GET /deletedkeys",
    "deleted key recover": "POST /deletedkeys/N/recover",
    "deleted key purge": "DELETE /deletedkeys/N",
    "secret set": "PUT /secrets/N",
    "secret update": f"PATCH /secrets/N{V}",
    "secret get": f"GET /secrets/N{V}",
    "secret list": "GET /secrets",
    "secret versions": "GET /secrets/N/versions",
    "secret delete": "DELETE /secrets/N",
    "secret backup": "POST /secrets/N/backup",
    "secret restore": "POST /secrets/restore",
    "deleted secret get": "GET /deletedsecrets/N",
    "deleted secret list": "GET /deletedsecrets",
    "deleted secret recover": "POST /deletedsecrets/N/recover",
    "deleted secret purge": "DELETE /deletedsecrets/N",
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_rows(operation: str) -> None:
    """Each operation is shown to work, to refuse, and to ask for a token."""
    pattern = re.compile(OPERATIONS[operation].replace("N", r"\{[a-z0-9]+\}") + "/?", re.IGNORECASE)
    rows = [row for _, row in ROWS if pattern.fullmatch(row["request"].split("?")[0])]
    statuses = {s for row in rows for s in (row["status"] if isinstance(row["status"], list) else [row["status"]])}
    assert statuses & {200, 204}, "no row in which it works"
    assert {s for s in statuses if 400 <= s < 500 and s != 401}, "no row in which it refuses"
    assert any(row.get("as") == "none" for row in rows), "no row without a token"


def test_rows_have_names_of_their_own_and_golden_answers() -> None:
    for table, rows in TABLES.items():
        names = [row["name"] for row in rows]
        assert len(names) == len(set(names)), table
        if not UPDATE:
            assert set(load_golden(table)) == set(names), f"{table}: UPDATE_GOLDEN=1 brings the golden file in line"
