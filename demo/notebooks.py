"""Runs the notebooks on the stores of `make demo` and saves them with their outputs: `python -m demo.notebooks`.

So they can be read where nothing runs, as on a forge's pages. Progress bars and warnings are left out.
"""

from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run each notebook of the folder, in it."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}})
        client.execute()
        for cell in notebook.cells:
            cell.metadata = {}
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        nbformat.write(notebook, path)
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
