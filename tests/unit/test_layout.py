"""The architecture, as far as a test can hold it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores import random_documents, write_scores

PACKAGE = Path(__file__).parents[2] / "rho_score"
MAY_IMPORT_RAY = {"read", "score", "engine", "reach", "preflight"}
PURE = {
    "windows",
    "loss",
    "histogram",
    "cuts",
    "excess",
    "rules",
    "kernel",
    "sampling",
    "spans",
    "vocabulary",
}  # neither Ray nor files


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_only_named_modules_import_ray() -> None:
    importing = {path.stem for path in PACKAGE.glob("*.py") if any(m.split(".")[0] == "ray" for m in _imports(path))}
    assert importing <= MAY_IMPORT_RAY


def test_pure_modules_know_nothing_of_ray_or_files() -> None:
    for name in PURE:
        modules = {module.split(".")[0] for module in _imports(PACKAGE / f"{name}.py")}
        ours = {module for module in _imports(PACKAGE / f"{name}.py") if module.startswith("rho_score")}
        assert not modules & {"ray", "fsspec", "pathlib", "os", "io"}, name
        assert ours <= {f"rho_score.{m}" for m in PURE | {"schema", "errors", "shown", "_kernel"}}, name


def test_reading_and_publishing_tasks_start_without_torch() -> None:
    code = "import sys, rho_score.read, rho_score.publish; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("arguments", ["--help", "--version", "score --help", "select --help"])
def test_help_is_printed_without_the_libraries_that_do_the_work(arguments: str) -> None:
    """It answers in the time that Python and the parser take to start."""
    code = "import sys; from rho_score.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments.split()], check=True, capture_output=True, text=True)
    assert done.stdout
    imported = set(done.stderr.split())
    assert "rho_score.config" in imported
    assert not imported & {"ray", "torch", "transformers", "pyarrow", "numpy", "fsspec", "pandas", "yaml"}


def test_a_threshold_is_found_without_pandas(tmp_path: Path) -> None:
    """Importing it takes longer than counting ten million tokens."""
    scores = write_scores(
        tmp_path / "ref", [[[ref for ref, _ in random_documents(20, seed=0, values=(0.5, 1.5, 2.5))]]]
    )
    code = "import sys; from rho_score.cli import main; main(sys.argv[1:]); sys.exit('pandas' in sys.modules)"
    command = ["select", "--ref", str(scores), str(tmp_path / "sel"), "--ratio", "0.5", "--dry-run"]
    done = subprocess.run([sys.executable, "-c", code, *command], check=False, capture_output=True, text=True)
    assert "what would be kept" in done.stdout
    assert done.returncode == 0
