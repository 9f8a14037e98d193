"""Runs the commands with one version of the code, below a folder that keeps what was written for the next time."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.same_bytes.commands import Command

DRIVER = Path(__file__).with_name("driver.py")
LIMIT_S = 3 * 3600


@dataclass(frozen=True)
class Version:
    """A checkout, and the folder in which its commands are run."""

    checkout: Path
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    """By command: SHA-256 of all that its files depend on."""

    def run(self, commands: Sequence[Command], inputs: Path) -> None:
        """Run the commands, but for those whose files are there from the same code, arguments and inputs.

        Raises:
            RuntimeError: the version's process died. What it finished is kept, and the next call goes on from there.
        """
        self._note_keys(commands, inputs)
        done = self.outcomes()
        left = [c for c in commands if done.get(c.name, {}).get("key") != self.keys[c.name]]
        print(f"{self.folder.name}: {len(left)} of {len(commands)} commands to run with {self.checkout}", flush=True)
        if left:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._drive(left)

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """By command: key, exit code and seconds of its last run."""
        file = self.folder / "outcomes.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return {outcome["name"]: outcome for outcome in map(json.loads, lines)}

    def _note_keys(self, commands: Sequence[Command], inputs: Path) -> None:
        code = _code_sha256(self.checkout)
        for command in commands:  # those that it reads from come before it
            parts = [code, *command.arguments, str(command.in_ray)]
            parts += [self.keys[name] for name in sorted(command.reads)]
            parts += [f"{name} {_made(inputs, name)}" for name in sorted(command.inputs)]
            self.keys[command.name] = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _drive(self, commands: Sequence[Command]) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment |= {
            "PYTHONPATH": str(self.checkout), "HF_HUB_OFFLINE": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }  # fmt: skip
        asked = json.dumps([[c.name, self.keys[c.name], c.arguments, c.in_ray] for c in commands])
        log = self.folder / "driver.log"
        with log.open("a") as file:
            ended = subprocess.run(
                [sys.executable, "-P", str(DRIVER)], input=asked, text=True, cwd=self.folder, env=environment,
                stdout=file, stderr=file, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        if ended.returncode:
            raise RuntimeError(f"the process of {self.checkout} ended with {ended.returncode}; see {log}")


def _made(inputs: Path, name: str) -> int:
    """When an input was made, nanoseconds; it is made if it is not there."""
    if not (inputs / name).exists():
        from tests.same_bytes.inputs import make  # imports torch, whose memory a comparison does not need

        make(inputs, name)
    return (inputs / name).lstat().st_mtime_ns


def _code_sha256(checkout: Path) -> str:
    """Of everything in the package, compiled modules and templates too."""
    digest = hashlib.sha256()
    for path in sorted((checkout / "rho_score").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(checkout)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
