"""Negative control: the checks find each lie in a history that is honest but for it. `run.sh` runs this first."""

from __future__ import annotations

import copy
import unittest
from typing import Any

import checks

Ops = list[dict[str, Any]]


def op(number: int, f: str, inv: int, ret: int, result: str = "ok", **more: Any) -> dict[str, Any]:
    base = {"id": number, "client": 0, "node": 1 + number % 3, "obj": "k", "kind": "key", "f": f}
    return base | {"inv": inv, "ret": ret, "result": result} | more


def item(version: str, tag: str, made: str, enabled: bool = True) -> dict[str, Any]:
    return {"version": version, "tag": tag, "made": made, "enabled": enabled}


def got(version: str, tag: str, made: str, enabled: bool = True) -> dict[str, Any]:
    return {"out_version": version, "out_tag": tag, "out_made": made, "out_enabled": enabled}


HONEST: Ops = [
    op(1, "get", 0, 5, "notfound"),
    op(2, "set", 10, 20, tag="o2", out_version="v1"),
    op(3, "sign", 30, 40, out_version="v1"),
    op(4, "set", 50, 60, tag="o4", out_version="v2"),
    op(5, "get", 70, 80, **got("v2", "o4", "o4")),
    op(6, "patch", 90, 100, version="v2", enabled=False, tag="o6"),
    op(7, "sign", 110, 120, "disabled", version="v2"),
    op(8, "delete", 130, 140),
    op(9, "sign", 150, 160, "notfound"),
    op(10, "set", 150, 160, "deleted", tag="o10"),
    op(11, "recover", 170, 180),
    op(12, "list", 190, 200, whole=True, items=[item("v1", "o2", "o2"), item("v2", "o6", "o4", False)]),
    op(13, "patch", 210, 220, version="v2", enabled=True, tag="o13"),
    op(14, "sign", 230, 240, version="v2", out_version="v2"),
    # Unknown outcomes: one that happened, one that did not.
    op(15, "set", 250, 260, "unknown", tag="o15"),
    op(16, "get", 270, 280, **got("v3", "o15", "o15")),
    op(17, "patch", 290, 300, "unknown", version="v3", enabled=False, tag="o17"),
    op(18, "sign", 310, 320, version="v3", out_version="v3"),
    op(19, "set", 330, 340, "none", tag="o19"),
]


def all_violations(ops: Ops) -> list[str]:
    return checks.revocations(ops) + checks.known_order(ops) + checks.promised_nothing(ops)


def final_reads(nodes: int = 3) -> Ops:
    made = {"v1": "o2", "v2": "o4", "v3": "o15"}
    reads = []
    for node in range(1, nodes + 1):
        items = [item(v, m, m) for v, m in made.items()]
        reads.append(op(0, "list", 900, 910, whole=True, items=items) | {"node": node})
        reads += [op(0, "get", 920, 930, version=v, **got(v, m, m)) | {"node": node} for v, m in made.items()]
    return reads


class Lies(unittest.TestCase):
    def setUp(self) -> None:
        self.ops = copy.deepcopy(HONEST)

    def change(self, number: int, **changes: Any) -> None:
        self.ops[number - 1].update(changes)

    def assert_found(self, text: str) -> None:
        found = all_violations(self.ops)
        self.assertTrue(any(text in one for one in found), f"{text!r} is not in {found}")

    def test_honest(self) -> None:
        self.assertEqual(all_violations(self.ops), [])

    def test_stale_read(self) -> None:
        self.change(5, **got("v1", "o2", "o2"))
        self.assert_found("newest version")

    def test_stale_sign(self) -> None:
        # Version 1 signs as the newest after version 2 was acknowledged and seen.
        self.ops.append(op(20, "sign", 85, 88, out_version="v1"))
        self.assert_found("newest version")

    def test_disabled_key_signs(self) -> None:
        self.change(7, result="ok", out_version="v2")
        self.assert_found("disabled, but used")

    def test_disabled_key_is_listed_as_enabled(self) -> None:
        self.ops[11]["items"][1] = item("v2", "o4", "o4")
        self.assert_found("disabled, but used")
        self.assert_found("tags of k/v2")

    def test_deleted_key_signs(self) -> None:
        self.change(9, result="ok", out_version="v2")
        self.assert_found("deleted, but used")

    def test_new_version_under_a_deleted_name(self) -> None:
        self.change(10, result="ok", out_version="v9")
        self.assert_found("deleted, but used")

    def test_deleted_twice(self) -> None:
        self.ops.append(op(20, "delete", 150, 160))
        self.assert_found("deleted, but used")

    def test_enabling_lost(self) -> None:
        self.change(14, result="disabled")
        self.assert_found("enabled, but refused")

    def test_live_key_not_found(self) -> None:
        self.change(3, result="notfound")
        self.assert_found("live, but refused")

    def test_recover_lost(self) -> None:
        self.change(12, items=[])
        self.assert_found("live, but refused")

    def test_delete_lost(self) -> None:
        self.change(11, result="notfound")
        self.assert_found("nothing to recover")

    def test_concurrent_enable_excuses(self) -> None:
        self.ops.append(op(20, "patch", 95, 125, "unknown", version="v2", enabled=True, tag="o20"))
        self.change(7, result="ok", out_version="v2")
        self.assertEqual(checks.revocations(self.ops), [])

    def test_earlier_enable_does_not_excuse(self) -> None:
        self.ops.append(op(20, "patch", 82, 88, version="v2", enabled=True, tag="o20"))
        self.change(7, result="ok", out_version="v2")
        self.assert_found("disabled, but used")

    def test_new_then_old(self) -> None:
        self.ops += [
            op(30, "set", 400, 500, tag="o30", out_version="v30"),
            op(31, "set", 400, 500, tag="o31", out_version="v31"),
            op(32, "sign", 410, 420, out_version="v30"),
            op(33, "sign", 430, 440, out_version="v31"),
        ]
        self.assertEqual(all_violations(self.ops), [])
        self.ops.append(op(34, "sign", 450, 460, out_version="v30"))
        self.assert_found("newest version")

    def test_overwritten_before_it_was_written(self) -> None:
        # Version 3 is the newest before and after: version 40 cannot have been in between.
        self.ops += [op(40, "set", 400, 410, tag="o40", out_version="v40"), op(41, "sign", 420, 430, out_version="v3")]
        self.assert_found("newest version")

    def test_read_out_of_nothing(self) -> None:
        self.change(16, **got("v9", "o99", "o99"))
        self.assert_found("which nobody wrote")

    def test_read_from_the_future(self) -> None:
        self.ops[2].update(f="get", **got("v2", "o4", "o4"))
        self.assert_found("before")

    def test_old_tags(self) -> None:
        self.ops += [op(20, "get", 182, 184, version="v2", **got("v2", "o4", "o4", False))]
        self.assert_found("tags of k/v2")

    def test_version_missing_in_a_list(self) -> None:
        del self.ops[11]["items"][0]
        self.assert_found("does not list")

    def test_nothing_was_changed(self) -> None:
        self.ops.append(op(20, "get", 350, 360, **got("v4", "o19", "o19")))
        self.assert_found("nothing was changed")

    def test_lost_write(self) -> None:
        final = final_reads()
        self.assertEqual(checks.nothing_lost(self.ops, final, 3), [])
        without = [one for one in final if not (one["f"] == "get" and one["node"] == 2 and one["version"] == "v1")]
        self.assertIn("node2 does not return", checks.nothing_lost(self.ops, without, 3)[0])
        final[0]["items"] = final[0]["items"][1:]
        self.assertIn("node1 does not list", checks.nothing_lost(self.ops, final, 3)[0])

    def test_lost_write_is_another_value(self) -> None:
        final = final_reads()
        final[1]["out_made"] = "o99"
        self.assertIn("changed", checks.nothing_lost(self.ops, final, 3)[0])

    def test_forged_signature(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256
        from workload import DIGEST, b64

        key = ec.generate_private_key(ec.SECP256R1())
        r, s = decode_dss_signature(key.sign(DIGEST, ec.ECDSA(Prehashed(SHA256()))))
        point = key.public_key().public_numbers()
        jwks = {"v1": {"x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}}
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        self.assertEqual(checks.signatures(jwks, [(1, "v1", signature)], DIGEST), [])
        forged = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
        self.assertIn("does not verify", checks.signatures(jwks, [(1, "v1", forged)], DIGEST)[0])
        self.assertIn("no answer told", checks.signatures(jwks, [(1, "v2", signature)], DIGEST)[0])


if __name__ == "__main__":
    unittest.main()
