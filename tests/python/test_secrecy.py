"""No secret value, private key, token or client secret can be found: not in data, logs, backup blobs or metrics.

The search knows what it looks for: values that the test chose, keys that it imported, tokens that it was given. Each is
looked for as it is, in both base64 alphabets at all three alignments, and in hex. The last test proves that the search
finds such things when they are there.
"""

from __future__ import annotations

import base64
import contextlib
import secrets as randomness
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import harness
from harness import Cluster, Place, b64url, unb64url

# How a PKCS#8 private key begins, by kind: what a generated key would show if it were in the clear.
PKCS8 = {
    "RSA": bytes.fromhex("020100300d06092a864886f70d0101010500"),
    "P-256": bytes.fromhex("020100301306072a8648ce3d020106082a8648ce3d030107"),
    "P-384": bytes.fromhex("020100301006072a8648ce3d020106052b81040022"),
    "P-521": bytes.fromhex("020100301006072a8648ce3d020106052b81040023"),
    "P-256K": bytes.fromhex("020100301006072a8648ce3d020106052b8104000a"),
}


def encodings(needle: bytes) -> Iterator[tuple[str, bytes]]:
    """Every form in which these bytes could lie in a file."""
    yield "raw", needle
    yield "hex", needle.hex().encode()
    yield "HEX", needle.hex().upper().encode()
    for shift in range(3):
        # The middle of the encoding at each alignment, without the characters that depend on the neighbours.
        text = base64.b64encode(b"\0" * shift + needle)
        text = text[4 if shift else 0 : len(needle) // 3 * 4]
        yield f"base64 at {shift}", text
        yield f"base64url at {shift}", text.replace(b"+", b"-").replace(b"/", b"_")


def find(needles: dict[str, bytes], haystack: bytes) -> list[str]:
    """Which needles are in the haystack, and how."""
    found = []
    for label, needle in needles.items():
        assert len(needle) >= 12, f"{label} is too short to look for"
        found += [f"{label} ({form})" for form, text in encodings(needle) if text in haystack]
    return found


@dataclass
class Known:
    """What must not be found, and what the service handed out that is to be searched."""

    needles: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


def fill(place: Place) -> Known:
    """Puts things into a vault that can be recognized."""
    known = Known()
    needle = known.needles

    for i in range(3):
        value = f"recognizable-{randomness.token_hex(24)}"
        needle[f"secret {i}"] = value.encode()
        place.ok("PUT", f"/secrets/hidden-{i}", {"value": value})
    # Compressed storage would hide a value from the search; one that cannot be compressed is searched for as well.
    needle["random secret"] = randomness.token_bytes(96)
    place.ok("PUT", "/secrets/random", {"value": b64url(needle["random secret"])})
    needle["random secret"] = b64url(needle["random secret"]).encode()
    known.blobs["backup of a secret"] = unb64url(place.ok("POST", "/secrets/hidden-0/backup")["value"])
    place.ok("DELETE", "/secrets/hidden-1")
    place.ok("DELETE", "/secrets/hidden-2")
    place.ok("DELETE", "/deletedsecrets/hidden-2")

    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    members = {
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    raw = {name: number.to_bytes((number.bit_length() + 7) // 8, "big") for name, number in members.items()}
    jwk = {name: b64url(value) for name, value in raw.items()}
    jwk |= {"kty": "RSA", "e": "AQAB", "n": b64url(numbers.public_numbers.n.to_bytes(256, "big"))}
    place.ok("PUT", "/keys/imported-rsa", {"key": jwk})
    needle |= {f"RSA {name}": value for name, value in raw.items()}
    # Some libraries keep numbers with the least byte first.
    needle |= {f"RSA {name}, reversed": value[::-1] for name, value in raw.items()}
    curve_key = ec.generate_private_key(ec.SECP256R1())
    scalar = curve_key.private_numbers().private_value.to_bytes(32, "big")
    public = curve_key.public_key().public_numbers()
    point = {"x": b64url(public.x.to_bytes(32, "big")), "y": b64url(public.y.to_bytes(32, "big"))}
    place.ok("PUT", "/keys/imported-ec", {"key": {"kty": "EC", "crv": "P-256", "d": b64url(scalar), **point}})
    needle |= {"EC d": scalar, "EC d, reversed": scalar[::-1]}
    oct_material = randomness.token_bytes(32)
    imported = place.call("PUT", "/keys/imported-oct", {"key": {"kty": "oct", "k": b64url(oct_material)}})
    if imported.status == 200:
        needle["oct k"] = oct_material

    for kind, body in {"RSA": {"kty": "RSA"}, **{c: {"kty": "EC", "crv": c} for c in PKCS8 if c != "RSA"}}.items():
        place.ok("POST", f"/keys/made-{kind}/create", body)
        needle[f"start of a PKCS#8 key, {kind}"] = PKCS8[kind]
    for name in ("imported-rsa", "imported-ec", "made-RSA"):
        # Used, so that they have been in every cache.
        alg, digest = ("ES256" if name.endswith("ec") else "RS256"), b64url(b"d" * 32)
        place.ok("POST", f"/keys/{name}/sign", {"alg": alg, "value": digest})
        known.blobs[f"backup of {name}"] = unb64url(place.ok("POST", f"/keys/{name}/backup")["value"])

    needle["client secret"] = place.client_secret.encode()
    token = place.token()
    needle["token"] = token.encode()
    needle["token's signature"] = unb64url(token.rsplit(".", 1)[1])
    needle["token's claims"] = token.split(".")[1].encode()
    needle["PEM"] = b"PRIVATE KEY-----"
    # Refusals, too, are logged without what was sent.
    refused = f"refused-{randomness.token_hex(24)}"
    needle["a refused value"] = refused.encode()
    assert place.call("PUT", "/secrets/bad_name", {"value": refused}).status == 400
    assert place.call("PUT", "/secrets/refused", {"value": refused, "tags": 1}).status == 400
    wrong = place.http.request(
        "POST",
        place.login_host,
        f"/{place.tenant}/oauth2/v2.0/token",
        f"grant_type=client_credentials&client_id={place.client_id}&client_secret={refused}&scope=https://vault.azure.net/.default".encode(),
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert wrong.status in (400, 401)
    assert place.call("GET", "/secrets/hidden-0", token="x" + token).status == 401
    return known


def files(*roots: Path) -> Iterator[tuple[Path, bytes]]:
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file():
                yield path, path.read_bytes()


def test_dev(tmp_path: Path) -> None:
    with harness.dev_server(tmp_path / "data") as dev:
        place = dev.place()
        known = fill(place)
        seen = 0
        # While it runs, and after it was stopped in good order: then memory tables have been written out.
        for stopped in (False, True):
            if stopped:
                assert dev.process.stop() == 0
            else:
                metrics = dev.admin_get("/metrics")
                assert b"claviger_http_requests_total" in metrics and not find(known.needles, metrics)
            for path, content in files(dev.directory, dev.process.log):
                assert not (found := find(known.needles, content)), f"{path}: {found}"
                seen += len(content)
        assert seen > 10_000, "there was something to search"
        assert any(path.name == "CURRENT" for path, _ in files(dev.directory)), "the store was searched"
        for label, blob in known.blobs.items():
            assert not find(known.needles, blob), label


def test_cluster(cluster: Cluster) -> None:
    """Nothing on any node's disk, in any log, or in what nodes show to operators."""
    known = fill(cluster.places()[1])
    world = (cluster.secrets / "world.key").read_bytes()
    for line in world.splitlines():
        # The longest word of each line: the world key is among them.
        for word in line.replace(b'"', b" ").split():
            if len(word) >= 40:
                known.needles[f"a word of world.key, {len(word)} bytes"] = word
                with contextlib.suppress(ValueError):
                    known.needles[f"the same decoded, {len(word)} bytes"] = base64.b64decode(word, validate=True)
    assert len(known.needles) > 25, "the world key was in its file"
    for node in cluster.nodes:
        for path, content in files(node.data, node.process.log):
            assert not (found := find(known.needles, content)), f"{path}: {found}"
        status, metrics = node.admin_get("/metrics")
        assert status == 200 and not find(known.needles, metrics.encode())
        for name in ("hidden-0", "imported-rsa", "made-RSA"):
            assert name not in metrics, "names that users choose are no labels"
        for path in ("/healthz/live", "/healthz/ready", "/debug", "/"):
            assert not find(known.needles, node.admin_get(path)[1].encode())
    for label, blob in known.blobs.items():
        assert not find(known.needles, blob), label


def test_private_files_of_the_world_are_private(cluster: Cluster) -> None:
    for path in cluster.secrets.iterdir():
        if path.suffix == ".key":
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_the_search_finds_what_is_there() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    needle = {"k": randomness.token_bytes(32), "start": PKCS8["P-256"]}
    for before in range(4):
        inside = b"x" * before + needle["k"] + b"y" * 5
        for hay in (inside, inside.hex().encode(), base64.b64encode(inside), base64.urlsafe_b64encode(inside)):
            assert find(needle, b"...." + hay), (before, hay)
    assert find(needle, der) and find(needle, base64.b64encode(der))
    assert not find(needle, randomness.token_bytes(10_000))
    rsa_der = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert PKCS8["RSA"] in rsa_der
    for curve in (ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()):
        der = ec.generate_private_key(curve).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        assert sum(start in der for start in PKCS8.values()) == 1
    with pytest.raises(AssertionError):
        find({"too short to mean anything": b"short"}, b"")
