"""What must be true of a history. Each check takes the recorded operations and returns the violations, in words.

These run over every operation of a run in about O(n log n). The checker in checker/ decides each object exactly, with a
model and a search that share nothing with this file.
"""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

Op = dict[str, Any]
FAR = math.inf


def end(op: Op) -> float:
    """When an operation is over for certain: one of unknown outcome never is."""
    return FAR if op["result"] == "unknown" else op["ret"]


def by_object(ops: Iterable[Op]) -> dict[str, list[Op]]:
    objects: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        objects[op["obj"]].append(op)
    return objects


def show(op: Op) -> str:
    """One operation for a report, times in milliseconds."""
    kept = ("id", "client", "node", "f", "version", "enabled", "result", "status", "code", "out_version", "out_tag")
    told = " ".join(f"{key}={op[key]}" for key in kept if key in op)
    return f"[{op['inv'] / 1e6:.3f}..{op['ret'] / 1e6:.3f} {told}]"


def not_undone(rule: Op, undoing: list[Op], use: Op) -> bool:
    """Whether `rule`, acknowledged before `use` was invoked, must still hold at `use`, whatever order one assumes."""
    return rule["ret"] < use["inv"] and not any(
        undo["inv"] < use["ret"] and end(undo) > rule["inv"] for undo in undoing
    )


def sweep(name: str, rules: list[Op], undoing: list[Op], uses: list[Op]) -> list[str]:
    """Violations: uses that a rule forbids which nothing can have undone."""
    found = []
    for use in uses:
        # The last rule acknowledged before the use is the strongest; an earlier one may still bind when the last was
        # concurrent with its undoing.
        for rule in rules:
            if not_undone(rule, undoing, use):
                found.append(f"{name}: {use['obj']}: after {show(rule)} came {show(use)}")
                break
    return found


def revocations(ops: list[Op]) -> list[str]:
    """After an acknowledged disable or delete nothing invoked later succeeds, on any node, until it is undone. And the
    other way round: after an acknowledged enable, recover or set nothing is refused that nobody revoked."""
    found = []
    for mine in by_object(ops).values():
        done = [op for op in mine if op["result"] in ("ok", "unknown")]
        acknowledged = [op for op in done if op["result"] == "ok"]
        deletes = [op for op in done if op["f"] == "delete"]
        recovers = [op for op in done if op["f"] == "recover"]
        sets = [op for op in acknowledged if op["f"] == "set"]
        # Signs of life: what a deleted object does not answer.
        alive = [
            op
            for op in acknowledged
            if op["f"] in ("get", "sign", "set", "patch", "delete") or op["f"] == "list" and op["items"]
        ]
        gone = [
            op
            for op in mine
            if (op["result"] == "notfound" and op["f"] != "recover")
            or op["result"] == "deleted"
            or (op["f"] == "list" and op["result"] == "ok" and not op["items"])
        ]
        acknowledged_deletes = [op for op in deletes if op["result"] == "ok"]
        # A delete is itself a rule; two of them need a recover between them.
        found += sweep("deleted, but used", acknowledged_deletes, recovers, alive)
        lively = sets + [op for op in recovers if op["result"] == "ok"]
        found += sweep("live, but refused", lively, deletes, gone)
        not_deleted = [op for op in mine if op["f"] == "recover" and op["result"] == "notfound"]
        found += sweep("deleted, but nothing to recover", acknowledged_deletes, recovers, not_deleted)

        patches: dict[tuple[str, bool], list[Op]] = defaultdict(list)
        for op in done:
            if op["f"] == "patch":
                patches[op["version"], op["enabled"]].append(op)
        uses: dict[str, list[Op]] = defaultdict(list)
        refused: dict[str, list[Op]] = defaultdict(list)
        for op in mine:
            if op["result"] == "ok" and op["f"] in ("get", "sign"):
                uses[op["out_version"]].append(op)
            elif op["result"] == "ok" and op["f"] == "list":
                for item in op["items"]:
                    (uses if item["enabled"] else refused)[item["version"]].append(op)
            elif op["result"] == "disabled" and op.get("version"):
                refused[op["version"]].append(op)
        for version, using in uses.items():
            disables = [op for op in patches[version, False] if op["result"] == "ok"]
            found += sweep("disabled, but used", disables, patches[version, True], using)
        for version, refusals in refused.items():
            enables = [op for op in patches[version, True] if op["result"] == "ok"]
            enables += [op for op in sets if op["out_version"] == version]
            found += sweep("enabled, but refused", enables, patches[version, False], refusals)
    return found


def register(name: str, writes: dict[str, Op], reads: list[tuple[str, Op]]) -> list[str]:
    """Linearizability of a register in which every written value is unique (Gibbons and Korach, 1997): exact.

    The value is current from the first moment an operation of it ended to the last moment one began. No two such spans
    may overlap, and no value may have all its operations within another's."""
    found = []
    first_end = {value: end(op) for value, op in writes.items()}
    last_start = {value: op["inv"] for value, op in writes.items()}
    for value, op in reads:
        if value not in writes:
            found.append(f"{name}: {show(op)} read {value}, which nobody wrote")
            continue
        if op["ret"] < writes[value]["inv"]:
            found.append(f"{name}: {show(op)} read {value} before {show(writes[value])}")
        first_end[value] = min(first_end[value], op["ret"])
        last_start[value] = max(last_start[value], op["inv"])
    spans = sorted((first_end[v], last_start[v], v) for v in writes if first_end[v] < last_start[v])
    for (_, until, one), (since, _, other) in zip(spans, spans[1:], strict=False):
        if since < until:
            found.append(f"{name}: {show(writes[one])} and {show(writes[other])}: each was seen after the other")
    starts = [span[0] for span in spans]
    for value in writes:
        since, until = last_start[value], first_end[value]
        if since <= until:
            # The span that began last before `since` is the only one that can hold it, if spans do not overlap.
            at = upper(starts, since) - 1
            if at >= 0 and spans[at][0] < since and until < spans[at][1]:
                found.append(f"{name}: {show(writes[value])} lies within the time of {show(writes[spans[at][2]])}")
    return found


def upper(values: list[float], limit: float) -> int:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < limit:
            low = middle + 1
        else:
            high = middle
    return low


def made_by(ops: list[Op]) -> dict[str, str]:
    """Version -> the tag of the operation that made it, as any read told."""
    made = {}
    for op in ops:
        if op["result"] == "ok":
            if op.get("out_made"):
                made[op["out_version"]] = op["out_made"]
            for item in op.get("items", ()):
                made[item["version"]] = item["made"]
            if op["f"] == "set":
                made[op["out_version"]] = op["tag"]
    return made


def known_order(ops: list[Op]) -> list[str]:
    """Per object: "newest version" is a register that sets write, and so are the tags of each version, which every
    change of it writes anew. Reads tell which write they saw: the order of writes is known wherever it can matter."""
    found = []
    for obj, mine in by_object(ops).items():
        tags = {op["tag"]: op for op in mine if op["f"] in ("set", "patch") and op["result"] in ("ok", "unknown")}
        made = made_by(mine)
        newest = {version: tags[tag] for version, tag in made.items() if tag in tags}
        reads = [
            (op["out_version"], op)
            for op in mine
            if op["f"] in ("get", "sign") and op["result"] == "ok" and not op.get("version")
        ]
        found += register(f"newest version of {obj}", newest, reads)

        seen: dict[str, list[tuple[str, Op]]] = defaultdict(list)
        for op in mine:
            if op["result"] != "ok":
                continue
            if op["f"] == "get":
                seen[op["out_version"]].append((op["out_tag"], op))
            for item in op.get("items", ()):
                seen[item["version"]].append((item["tag"], op))
        for version, reads in seen.items():
            told = {tag for tag, _ in reads}
            writes = {
                op["tag"]: op
                for op in tags.values()
                if (op["f"] == "patch" and op["version"] == version or op["f"] == "set" and made[version] == op["tag"])
                and (op["result"] == "ok" or op["tag"] in told)
            }
            found += register(f"tags of {obj}/{version}", writes, reads)

        # A list holds what was acknowledged before it, and nothing that began after it.
        sets = [op for op in mine if op["f"] == "set" and op["result"] == "ok"]
        for op in mine:
            if op["f"] == "list" and op["result"] == "ok" and op["items"]:
                listed = {item["version"] for item in op["items"]}
                if not op["whole"]:
                    found.append(f"{show(op)}: {len(listed)} versions are not one page")
                for one in sets:
                    if one["ret"] < op["inv"] and one["out_version"] not in listed:
                        found.append(f"{obj}: {show(op)} does not list {show(one)}")
                    if one["inv"] > op["ret"] and one["out_version"] in listed:
                        found.append(f"{obj}: {show(op)} lists {show(one)} too early")
    return found


def promised_nothing(ops: list[Op]) -> list[str]:
    """An answer "nothing was changed" to a write whose change is seen all the same."""
    nothing = {op["tag"]: op for op in ops if op["result"] == "none" and "tag" in op}
    found = {}
    for op in ops:
        for tag in (op.get("out_tag"), op.get("out_made"), *(item["tag"] for item in op.get("items", ()))):
            if tag in nothing:
                found[tag] = f"nothing was changed, said {show(nothing[tag])}, but {show(op)} sees it"
    return list(found.values())


def nothing_lost(ops: list[Op], final: list[Op], nodes: int) -> list[str]:
    """Every acknowledged set is listed and readable at the end, on every node; `final` are the reads of the end."""
    found = []
    answered = [op for op in final if op["result"] == "ok"]
    read = {(op["node"], op["version"]): op for op in answered if op["f"] == "get" and "version" in op}
    lists = {(op["node"], op["obj"]): op for op in answered if op["f"] == "list"}
    for op in ops:
        if op["f"] != "set" or op["result"] != "ok":
            continue
        for node in range(1, nodes + 1):
            listed = lists.get((node, op["obj"]), {"items": []})["items"]
            if op["out_version"] not in {item["version"] for item in listed}:
                found.append(f"lost: node{node} does not list {op['obj']}: {show(op)}")
            got = read.get((node, op["out_version"]))
            if got is None:
                found.append(f"lost: node{node} does not return {op['obj']}: {show(op)}")
            elif got["out_made"] != op["tag"]:
                found.append(f"changed: node{node} returns {show(got)} for {show(op)}")
    return found


def signatures(jwks: dict[str, dict[str, str]], made: list[tuple[int, str, bytes]], digest: bytes) -> list[str]:
    """Every signature verifies under the public key of the version that it names."""
    found, keys = [], {}
    for number, version, signature in made:
        if version not in keys:
            if version not in jwks:
                found.append(f"op {number}: signed with version {version}, whose public key no answer told")
                continue
            x, y = (int.from_bytes(base64.urlsafe_b64decode(jwks[version][c] + "=="), "big") for c in "xy")
            keys[version] = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        try:
            keys[version].verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            found.append(f"op {number}: the signature does not verify under version {version}")
    return found


def acknowledged_revocations(ops: list[Op]) -> int:
    return sum(
        op["result"] == "ok" and (op["f"] == "delete" or (op["f"] == "patch" and not op["enabled"])) for op in ops
    )
