"""Where the fuzzing works, and what counts as an error of ours."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from rho_score.errors import RhoScoreError

ROOT = Path(__file__).parents[2]
OURS = (RhoScoreError, OSError)


@cache
def place() -> Path:
    """A folder for this process."""
    keep = tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    _KEPT.append(keep)
    return Path(keep.name)


_KEPT: list[Any] = []
