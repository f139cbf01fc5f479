"""Dashboard and alerts ask for what there is: every metric is one of a running cluster, and every expression parses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading

import pytest

import promql
from harness import ROOT, Cluster, Node, eventually

CONFIG = ROOT / "cluster-config"
# What Prometheus makes itself.
BUILT_IN = {"up"}


def alerts() -> dict[str, str]:
    """Expressions by name. No YAML library: the file has one form, which this insists on."""
    found: dict[str, str] = {}
    name, lines = "", (CONFIG / "alerts.yml").read_text().splitlines()
    for number, line in enumerate(lines):
        if match := re.fullmatch(r"      - alert: (\w+)", line):
            name = match[1]
        elif match := re.fullmatch(r"        expr: (.+)", line):
            text = match[1]
            if text == "|":
                rest = lines[number + 1 :]
                end = next(i for i, more in enumerate(rest) if not more.startswith(" " * 10))
                text = " ".join(rest[:end])
            assert name and name not in found, f"an expression without an alert of its own: {line}"
            found[name] = text
    assert len(found) == sum("- alert:" in line for line in lines) >= 10
    return found


def panels() -> dict[str, str]:
    dashboard = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    assert len(found) >= 30
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["schemaVersion"] and dashboard["uid"]
    return found


EXPRESSIONS = {**alerts(), **panels()}


@pytest.fixture(scope="module")
def known(cluster: Cluster) -> set[str]:
    """Names that the nodes tell, those included that are there only while something happens."""
    place = cluster.places()[0]
    place.ok("PUT", "/secrets/monitored", {"value": "v"})
    names: set[str] = set()
    paused: Node | None = None

    def look() -> bool:
        for node in cluster.nodes:
            if node is not paused:
                names.update(sample.partition("{")[0] for sample in node.metrics())
        return "claviger_visible_blocked_by" in names

    eventually("leases", lambda: all(node.has_lease() for node in cluster.nodes))
    # Writes wait for a node that holds a lease and does not answer, and the leader says for which.
    paused = next(node for node in cluster.nodes if not node.leads())
    asked = next(node for node in cluster.nodes if node is not paused)
    paused.process.signal(signal.SIGSTOP)
    try:
        write = threading.Thread(
            target=lambda: cluster.place(asked).call("PUT", "/secrets/monitored", {"value": "w"}), daemon=True
        )
        write.start()
        eventually("the leader says whom a write waits for", look, 10)
        write.join(20)
    finally:
        paused.process.signal(signal.SIGCONT)
    cluster.wait_ready()
    return names


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_asks_for_what_there_is(known: set[str], name: str) -> None:
    metrics = promql.parse(EXPRESSIONS[name].replace("$__rate_interval", "1m"))
    assert metrics and metrics <= known | BUILT_IN, f"not told by any node: {metrics - known - BUILT_IN}"


def test_alerts_under_promtool() -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not here; the parser of promql.py has looked at every expression")
    subprocess.run(["promtool", "check", "rules", CONFIG / "alerts.yml"], check=True, timeout=30)


@pytest.mark.parametrize(
    "wrong",
    ["rate(a[5m]", "sum by (a) b)", "a{b=c}", "a and", "rate(a[5])", "nosuch(a)", "a{b=~}", "sum by a (b)", "a b", "> 1"],
)
def test_the_parser_finds_mistakes(wrong: str) -> None:
    with pytest.raises(promql.Wrong):
        promql.parse(wrong)
