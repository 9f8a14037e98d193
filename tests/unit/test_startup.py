"""What is imported when: commands that need little start fast."""

import subprocess
import sys
from pathlib import Path

import pytest

import rho_score
from tests.stores import random_documents, write_scores

HEAVY = {"ray", "torch", "transformers", "pyarrow", "pandas", "numpy"}


def _loaded(code: str, *arguments: object) -> set[str]:
    """Heavy packages that a process has imported after `code`."""
    code += f"; import sys; print('loaded', *sorted({HEAVY!r} & set(sys.modules)))"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_package_itself_imports_nothing_heavy() -> None:
    assert _loaded("import rho_score") == set()


@pytest.mark.parametrize("arguments", ["--help", "--version", "score --help", "select --help"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    code = """
import contextlib, sys
from rho_score.cli import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
assert "rho_score.config" in sys.modules and "fsspec" not in sys.modules
pass"""
    assert _loaded(code, *arguments.split()) == set()


def test_reading_and_publishing_tasks_start_without_torch() -> None:
    assert not _loaded("import rho_score.scoring.read, rho_score.scoring.publish") & {"torch", "transformers"}


def test_dedup_starts_without_torch_and_ray() -> None:
    assert not _loaded("import rho_score.deduplicating.job") & {"torch", "transformers", "ray", "pandas"}


def test_a_page_is_served_without_torch_and_ray() -> None:
    assert not _loaded("import rho_score.viewing.job") & {"torch", "ray", "pandas"}


def test_a_status_is_told_without_torch_and_ray(tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "ref", [[[ref for ref, _ in random_documents(20, seed=0)]]])
    code = "import sys; from rho_score.cli import main; assert main(sys.argv[1:]) == 0"
    assert not _loaded(code, "status", scores) & {"torch", "transformers", "ray", "pandas"}


def test_a_threshold_is_found_without_pandas(tmp_path: Path) -> None:
    """Importing it takes longer than counting ten million tokens."""
    scores = write_scores(
        tmp_path / "ref", [[[ref for ref, _ in random_documents(20, seed=0, values=(0.5, 1.5, 2.5))]]]
    )
    code = "import sys; from rho_score.cli import main; assert main(sys.argv[1:]) == 0"
    loaded = _loaded(code, "select", "--ref", scores, tmp_path / "sel", "--ratio", "0.5", "--dry-run")
    assert "pyarrow" in loaded
    assert "pandas" not in loaded


@pytest.mark.parametrize("name", [name for name in rho_score.__all__ if name != "__version__"])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(rho_score, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scoer'"):
        rho_score.scoer  # noqa: B018
    assert set(rho_score.__all__) <= set(dir(rho_score))
