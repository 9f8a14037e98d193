"""A short run of every target in a process of its own, with bounded memory; `make fuzz` is the long one."""

import subprocess
import sys

from tests.fuzz.place import ROOT
from tests.fuzz.targets import TARGETS


def test_any_bytes_give_a_result_or_an_error_of_ours() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--examples", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    for target in TARGETS:
        assert target.name in done.stdout
