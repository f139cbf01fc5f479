"""Unmodified programs, as their authors would run them against Azure, run under `claviger exec`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import Dev, binary, clean_environment

PROGRAMS = Path(__file__).parent / "programs"


def execute(program: str, stdin: str, *before: str) -> subprocess.CompletedProcess[str]:
    command = [binary(), "exec", *before, "--", sys.executable, str(PROGRAMS / program)]
    return subprocess.run(command, env=clean_environment(), input=stdin, capture_output=True, text=True, timeout=60)


CASES = {
    "keys.py": (
        "first-key\n",
        ["created first-key in demo", "found first-key, version True", "signature True", "deleted first-key, on 20"],
    ),
    "secrets_china.py": (
        "first-secret\nlife, the universe and everything\n",
        [
            "stored first-secret in demo",
            "it says 'life, the universe and everything' at demo.vault.azure.cn",
            "deleted first-secret",
        ],
    ),
    "secrets_async.py": ("second-secret\n42\n", ["it says '42'", "purged second-secret"]),
    "elsewhere.py": ("", ["refused True"]),
}


@pytest.mark.parametrize("program", CASES)
def test_against_a_running_server(dev: Dev, program: str) -> None:
    stdin, wanted = CASES[program]
    done = execute(program, stdin, "--data-dir", str(dev.directory))
    assert done.returncode == 0, done.stdout + done.stderr
    for line in wanted:
        assert line in done.stdout, done.stdout


@pytest.mark.parametrize("program", ["keys.py", "secrets_china.py"])
def test_against_a_throw_away_server(program: str) -> None:
    stdin, wanted = CASES[program]
    done = execute(program, stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in wanted:
        assert line in done.stdout, done.stdout


def test_a_program_that_fails_shows_why(dev: Dev) -> None:
    """A second run meets the soft-deleted name, and the SDK's error reaches the user."""
    first = execute("keys.py", "fails-twice\n", "--data-dir", str(dev.directory))
    second = execute("keys.py", "fails-twice\n", "--data-dir", str(dev.directory))
    assert (first.returncode, second.returncode) == (0, 1), second.stdout + second.stderr
    assert "currently in a deleted but recoverable state" in second.stderr


def test_the_programs_know_nothing_of_claviger() -> None:
    for program in ("keys.py", "secrets_china.py", "secrets_async.py"):
        code = (PROGRAMS / program).read_text().split('"""', 2)[2].lower()
        for word in ("claviger", "verify=", "connection_verify", "verify_challenge", "proxy", "localhost"):
            assert word not in code, f"{program}: {word}"
