"""The command line: what a newcomer types, and what it says when something is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import ROOT, Dev, binary, clean_environment, eventually, must, run

# --- dev -------------------------------------------------------------------------------------------------------------


def test_dev_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    with harness.dev_server(tmp_path / "data", ("demo", "other-vault")) as dev:
        before, environment = dev.place(), dev.environment()
        secret = before.ok("PUT", "/secrets/kept", {"value": "still here"})
        elsewhere = before.ok("PUT", "/secrets/kept", {"value": "over there"}, vault="other-vault")
        key = before.ok("POST", "/keys/kept/create", {"kty": "RSA"})
        before.ok("PUT", "/secrets/gone", {"value": "v"})
        before.ok("DELETE", "/secrets/gone")
        signature = before.ok("POST", "/keys/kept/sign", {"alg": "RS256", "value": "A" * 43})["value"]
        token = before.token()
        assert dev.process.stop() == 0, "SIGTERM is an orderly end"

        dev.start()
        again = dev.environment()
        for name in (
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_SUBSCRIPTION_ID",
            "KEY_VAULT_NAME",
        ):
            assert again[name] == environment[name], name
        assert Path(again["SSL_CERT_FILE"]).read_bytes() == Path(environment["SSL_CERT_FILE"]).read_bytes()
        after = dev.place()
        got = after.ok("GET", "/secrets/kept")
        assert (got["id"], got["value"], got["attributes"]) == (secret["id"], "still here", secret["attributes"])
        assert after.ok("GET", "/secrets/kept", vault="other-vault")["id"] == elsewhere["id"]
        assert after.ok("GET", "/keys/kept") == key
        assert after.ok("GET", "/deletedsecrets/gone")
        same = after.ok("POST", "/keys/kept/sign", {"alg": "RS256", "value": "A" * 43})["value"]
        assert same == signature, "the same private key"
        assert after.call("GET", "/secrets/kept", token=token).status == 200, "tokens outlive a restart"


def test_dev_survives_kill_9(tmp_path: Path) -> None:
    with harness.dev_server(tmp_path / "data") as dev:
        place = dev.place()
        written = [place.ok("PUT", f"/secrets/s-{i}", {"value": str(i)})["id"] for i in range(50)]
        dev.process.kill()
        dev.start()
        place = dev.place()
        assert [place.ok("GET", f"/secrets/s-{i}")["id"] for i in range(50)] == written


def test_a_second_dev_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with harness.dev_server(tmp_path / "data") as dev:
        port = harness.free_port()
        second = run("dev", "--data-dir", str(dev.directory), "--listen", f"127.0.0.1:{port}", patience=20)
        assert second.code not in (0, 101) and second.code > 0
        assert str(dev.directory) in second.err, second.err
        assert re.search("in use|running|another|already", second.err), second.err
        assert "panicked" not in second.err
        assert dev.place().call("GET", "/secrets").status == 200, "the first goes on"


def test_dev_says_what_to_do_next(tmp_path: Path) -> None:
    with harness.dev_server(tmp_path / "data") as dev:
        eventually("it names the next command", lambda: "claviger exec" in dev.process.text())
        ready = [line for line in dev.process.text().splitlines() if line.startswith("ready")]
        assert len(ready) == 1 and str(dev.port) in ready[0] and "demo" in ready[0]


def test_dev_refuses_a_port_in_use(tmp_path: Path, dev: Dev) -> None:
    second = run("dev", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{dev.port}", patience=20)
    assert second.code > 0 and str(dev.port) in second.err, second.err
    assert "panicked" not in second.err


@pytest.mark.parametrize("vault", ["a", "1abc", "a--b", "ends-", "x" * 25, "under_score"])
def test_dev_refuses_bad_vault_names(tmp_path: Path, vault: str) -> None:
    done = run("dev", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:1", "--vault", vault, patience=20)
    assert done.code > 0 and vault in done.err, done.err


def test_dev_refuses_a_listener_that_is_none(tmp_path: Path) -> None:
    done = run("dev", "--data-dir", str(tmp_path / "data"), "--listen", "nonsense", patience=20)
    assert done.code > 0 and "nonsense" in done.err, done.err
    assert not (tmp_path / "data").exists(), "nothing was made"


# --- exec ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 125])
def test_exec_ends_as_the_command_does(dev: Dev, code: int) -> None:
    done = run("exec", "--data-dir", str(dev.directory), "--", "sh", "-c", f"exit {code}")
    assert done.code == code, done


def test_exec_ends_as_the_command_does_that_was_killed(dev: Dev) -> None:
    done = run("exec", "--data-dir", str(dev.directory), "--", "sh", "-c", "kill -KILL $$")
    assert done.code == 128 + signal.SIGKILL, done


def test_exec_of_what_is_no_command(dev: Dev, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    for command, code in (("no-such-command-here", 127), (str(plain), 126)):
        done = run("exec", "--data-dir", str(dev.directory), "--", command)
        assert done.code == code and command in done.err, done
    done = run("exec", "--data-dir", str(dev.directory))
    assert done.code == 2 and done.err.strip(), done


def test_exec_passes_streams_and_arguments(dev: Dev) -> None:
    script = "import sys; print(sys.argv[1:]); print(sys.stdin.read().upper()); print('aside', file=sys.stderr)"
    done = run(
        "exec", "--data-dir", str(dev.directory), "--", sys.executable, "-c", script, "a b", "--vault", stdin="in"
    )
    assert (done.code, done.out) == (0, "['a b', '--vault']\nIN\n"), done
    assert "aside" in done.err


def test_exec_passes_signals_on(dev: Dev, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"trap 'echo got > {flag}; exit 7' TERM; echo up > {flag}; while :; do sleep 0.05; done"
    child = subprocess.Popen(
        [binary(), "exec", "--data-dir", str(dev.directory), "--", "sh", "-c", script], env=clean_environment()
    )
    try:
        eventually("the command runs", lambda: flag.exists() and flag.read_text() == "up\n")
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 7
        assert flag.read_text() == "got\n"
    finally:
        child.kill()
        child.wait(20)


def test_exec_gives_the_environment_that_programs_read(dev: Dev) -> None:
    env = dev.environment()
    guid = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_SUBSCRIPTION_ID"):
        assert guid.fullmatch(env[name]), name
    assert len(env["AZURE_CLIENT_SECRET"]) >= 32
    assert env["KEY_VAULT_NAME"] == "demo"
    assert env["HTTPS_PROXY"].startswith("http://127.0.0.1:") and env["https_proxy"] == env["HTTPS_PROXY"]
    bundles = {env[name] for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")}
    assert len(bundles) == 1
    text = Path(bundles.pop()).read_text()
    assert "BEGIN CERTIFICATE" in text and "PRIVATE" not in text
    assert "HTTP_PROXY" not in env, "plain http is nobody's business"


def test_exec_keeps_the_callers_other_variables(dev: Dev) -> None:
    shown = run(
        "exec", "--data-dir", str(dev.directory), "--", "env", env={"MINE": "1", "AZURE_CLIENT_CERTIFICATE_PATH": "/x"}
    ).out.splitlines()
    assert "MINE=1" in shown
    assert not any(line.startswith("AZURE_CLIENT_CERTIFICATE_PATH=") for line in shown), "it would lead past ours"


def test_exec_without_a_server_makes_one_and_clears_up(tmp_path: Path) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    script = "import os, ssl, sys; print(os.environ['HTTPS_PROXY']); print(os.environ['SSL_CERT_FILE']); sys.exit(5)"
    done = run("exec", "--", sys.executable, "-c", script, env={"TMPDIR": str(scratch), "HOME": str(tmp_path / "home")})
    assert done.code == 5, done
    proxy, bundle = done.out.split()
    assert not Path(bundle).exists(), "the throw-away server's files are gone"
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "home").exists()
    port = int(proxy.rsplit(":", 1)[1])
    import socket

    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "and so is the server"


def test_exec_against_a_directory_without_a_server(tmp_path: Path) -> None:
    """It starts one there for the time of the command, and everything is as it was left."""
    mark = tmp_path / "mark"
    directory = tmp_path / "data"
    with harness.dev_server(directory) as dev:
        secret = dev.place().client_secret
        assert dev.process.stop() == 0
    script = f'test "$AZURE_CLIENT_SECRET" = "{secret}" && touch {mark}'
    done = run("exec", "--data-dir", str(directory), "--", "sh", "-c", script)
    assert done.code == 0 and mark.exists(), done
    assert not (directory / "run.json").exists(), "that server is gone again"


# --- words -----------------------------------------------------------------------------------------------------------


def test_version() -> None:
    done = run("--version")
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "Cargo.toml").read_text())
    assert done.code == 0 and re.fullmatch(r"claviger \d+\.\d+\.\d+\S*.*\n", done.out), done
    if version:
        assert version[1] in done.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["dev", "exec", "server", "world", "cluster", "config"]),
        (["dev"], ["--data-dir", "--listen", "--vault"]),
        (["exec"], ["--data-dir", "--"]),
        (["server"], ["--config"]),
        (["world"], ["init"]),
        (["world", "init"], ["--out", "--region", "--domain", "--node"]),
        (["cluster"], ["init", "join", "status", "remove"]),
        (["cluster", "status"], ["--config", "--json"]),
        (["cluster", "remove"], ["--config", "--node"]),
        (["config"], ["check", "default"]),
    ],
    ids=lambda value: "-".join(value) or "top" if isinstance(value, list) and "--" not in "".join(value) else "",
)
def test_help(command: list[str], words: list[str]) -> None:
    done = run(*command, "--help")
    assert done.code == 0 and done.err == "", done
    for word in words:
        assert word in done.out, f"{word} in the help of {command}"


@pytest.mark.parametrize(
    "command", [["nonsense"], ["dev", "--nonsense"], ["cluster"], ["server"], ["cluster", "join"], []]
)
def test_wrong_words_are_refused_with_usage(command: list[str]) -> None:
    done = run(*command)
    assert done.code == 2, done
    assert "usage" in (done.err + done.out).lower()


# --- world and config ------------------------------------------------------------------------------------------------


def test_world_init_never_overwrites(tmp_path: Path) -> None:
    out = tmp_path / "secrets"
    arguments = [
        "world",
        "init",
        "--out",
        str(out),
        "--region",
        "local",
        "--domain",
        "kms.localhost",
        "--node",
        "node1",
    ]
    assert run(*arguments).code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {"world.key", "api.pem", "api.key", "api-ca.pem", "peer-ca.pem", "node1.pem", "node1.key"} <= set(before)
    again = run(*arguments)
    assert again.code > 0 and str(out) in again.err, again
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_config_default_is_a_configuration_with_everything(tmp_path: Path) -> None:
    done = run("config", "default")
    assert done.code == 0
    for section in ("[node]", "[world]", "[api]", "[peer]", "[admin]", "[raft]", "[read]", "[log]"):
        assert section in done.out
    (tmp_path / "default.toml").write_text(done.out)
    checked = run("config", "check", str(tmp_path / "default.toml"))
    # Only the files that it names as examples are not there.
    assert checked.code > 0
    assert "unknown" not in checked.err + checked.out


def test_config_check_tells_all_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        """
[node]
id = 0
name = "node one"
[api]
listen = "nowhere"
domain = "kms.localhost"
colour = "red"
[raft]
heartbeat_ms = "fast"
election_min_ms = 1
[read]
mode = "psychic"
[garden]
"""
    )
    done = run("config", "check", str(path))
    assert done.code > 0
    said = done.out + done.err
    for field in (
        "node.id",
        "node.name",
        "world.file",
        "api.listen",
        "api.colour",
        "api.certificate",
        "peer.ca",
        "raft.heartbeat_ms",
        "raft.election_min_ms",
        "read.mode",
        "garden",
    ):
        assert field in said, f"{field} is not named in\n{said}"
    started = run("server", "--config", str(path), patience=20)
    assert started.code > 0 and "node.id" in started.err and "garden" in started.err, "the server says the same"


def test_config_check_of_what_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[node\nid = 1")
    done = run("config", "check", str(tmp_path / "bad.toml"))
    assert done.code > 0 and "line 1" in done.out + done.err, done
    missing = run("config", "check", str(tmp_path / "missing.toml"))
    assert missing.code > 0 and "missing.toml" in missing.err, missing


def test_config_check_accepts_the_samples(tmp_path: Path) -> None:
    """The files in cluster-config/ are right, once their world was made as its README says."""
    import shutil

    copy = tmp_path / "cluster-config"
    shutil.copytree(ROOT / "cluster-config", copy)
    nodes = [word for i in (1, 2, 3) for word in ("--node", f"node{i}")]
    made = run(
        "world",
        "init",
        "--out",
        str(copy / "three-nodes" / "secrets"),
        "--region",
        "local",
        "--domain",
        "kms.localhost",
        *nodes,
    )
    assert made.code == 0, made
    for i in (1, 2, 3):
        done = run("config", "check", str(copy / "three-nodes" / f"node{i}.toml"))
        assert done.code == 0, done


def test_cluster_commands_without_a_server_say_so(tmp_path: Path) -> None:
    cluster = harness.Cluster(tmp_path)
    try:
        for command in (["init"], ["join"], ["status"], ["remove", "--node", "2"]):
            done = run("cluster", *command, "--config", str(cluster.nodes[0].config), patience=30)
            assert done.code > 0 and done.err.strip() and "panicked" not in done.err, done
    finally:
        cluster.kill()


def test_output_to_a_closed_pipe_is_no_panic() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [binary(), "config", "default"], stdout=writer, stderr=subprocess.PIPE, env=clean_environment(), timeout=20
    )
    os.close(writer)
    assert b"panicked" not in done.stderr


def test_certificates_for_another_node_and_in_place_of_old_ones(tmp_path: Path) -> None:
    secrets, out = tmp_path / "secrets", tmp_path / "new"
    must("world", "init", "--out", str(secrets), "--domain", "kms.test", "--node", "node1")
    more = ("world", "certificate", "--secrets", str(secrets), "--out", str(out))
    must(*more, "--node", "node4", "--domain", "kms.test")
    assert sorted(file.name for file in out.iterdir()) == ["api.key", "api.pem", "node4.key", "node4.pem"]
    assert {oct(file.stat().st_mode & 0o777) for file in out.glob("*.key")} == {"0o600"}
    # They fit the authorities that nodes and clients know already: the check looks.
    config = tmp_path / "node4.toml"
    config.write_text(
        f"""
[node]
id = 4
name = "node4"
data_dir = "data"
[world]
file = "{secrets}/world.key"
[api]
domain = "kms.test"
certificate = "{out}/api.pem"
key = "{out}/api.key"
[peer]
advertise = "127.0.0.1:8444"
ca = "{secrets}/peer-ca.pem"
certificate = "{out}/node4.pem"
key = "{out}/node4.key"
"""
    )
    must("config", "check", str(config))
    again = run(*more, "--node", "node4")
    assert again.code == 1 and "node4.pem` is there already" in again.err, again
    nobody = run("world", "certificate", "--secrets", str(out), "--out", str(out), "--node", "node5")
    assert nobody.code == 1 and "peer-ca.pem" in nobody.err, nobody


def test_a_node_that_is_named_twice_leaves_nothing(tmp_path: Path) -> None:
    twice = run("world", "init", "--out", str(tmp_path / "s"), "--node", "a", "--node", "a")
    assert twice.code == 1 and "node `a` is named twice" in twice.err, twice
    assert not (tmp_path / "s").exists()
