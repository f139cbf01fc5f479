"""Negative control on a real history: tells one lie at a time in it, and counts how many each judge finds.

    mutate.py target/chaos/run-3-1/history.jsonl target/chaos/checker

A lie that was concurrent with what would excuse it is none, so not all are found; but what one judge finds by proof the
exact one must find too, and nearly all stale reads and falsified lists have to be found by both.
"""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import checks

Ops = list[checks.Op]
SLACK = 20_000_000  # ns


def stale(ops: Ops, choose: random.Random) -> bool:
    """A read of the newest version answers what an earlier one answered."""
    reads = [op for op in ops if op["f"] in ("get", "sign") and op["result"] == "ok" and not op.get("version")]
    for op in choose.sample(reads, len(reads)):
        older = [
            old
            for old in reads
            if old["f"] == "get" and old["ret"] < op["inv"] - SLACK and old["out_version"] != op["out_version"]
        ]
        if older:
            source = choose.choice(older)
            op.update({key: source[key] for key in ("out_version", "out_tag", "out_made", "out_enabled") if key in op})
            return True
    return False


def disabled(ops: Ops, choose: random.Random) -> bool:
    """A disabled version signs."""
    refused = [op for op in ops if op["result"] == "disabled" and op.get("version")]
    if not refused:
        return False
    op = choose.choice(refused)
    op.update(f="sign", result="ok", out_version=op["version"])
    return True


def deleted(ops: Ops, choose: random.Random) -> bool:
    """A deleted object signs with a version of its own."""
    sets = [op for op in ops if op["f"] == "set" and op["result"] == "ok"]
    gone = [op for op in ops if op["f"] in ("get", "sign") and op["result"] == "notfound"]
    for op in choose.sample(gone, len(gone)):
        made = [one for one in sets if one["ret"] < op["inv"]]
        if made:
            version = choose.choice(made)["out_version"]
            op.update(f="sign", result="ok", version=version, out_version=version)
            return True
    return False


def lists(ops: Ops) -> Ops:
    return [op for op in ops if op["f"] == "list" and op.get("items")]


def forgotten(ops: Ops, choose: random.Random) -> bool:
    """A list lacks a version."""
    found = lists(ops)
    if found:
        items = choose.choice(found)["items"]
        items.pop(choose.randrange(len(items)))
    return bool(found)


def flipped(ops: Ops, choose: random.Random) -> bool:
    """A list tells a version to be disabled that is enabled, or the other way round."""
    found = lists(ops)
    if found:
        item = choose.choice(choose.choice(found)["items"])
        item["enabled"] = not item["enabled"]
    return bool(found)


LIES: tuple[Callable[[Ops, random.Random], bool], ...] = (stale, disabled, deleted, forgotten, flipped)


def main(history: str, checker: str) -> int:
    objects = checks.by_object(json.loads(line) for line in Path(history).read_text().splitlines())
    choose, good = random.Random(1), True
    for lie in LIES:
        told, ours, theirs, unconfirmed = 0, 0, 0, 0
        for ops in objects.values():
            doctored = copy.deepcopy(ops)
            if not lie(doctored, choose):
                continue
            told += 1
            mine = bool(checks.revocations(doctored) + checks.known_order(doctored))
            lines = "\n".join(json.dumps(op) for op in doctored)
            verdict = subprocess.run([checker], input=lines, text=True, capture_output=True, check=False).stdout
            exact = bool(json.loads(verdict)["illegal"])
            ours, theirs, unconfirmed = ours + mine, theirs + exact, unconfirmed + (mine and not exact)
        good &= unconfirmed == 0 and theirs > told / 3
        print(f"{lie.__name__}: {told} lies, {ours} found by checks.py, {theirs} by Porcupine")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
