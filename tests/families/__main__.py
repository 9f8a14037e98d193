"""`python -m tests.families [FAMILY …]`: the sweep of model families, a line each as it goes; with --page, docs/families.md."""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from tests.families.page import page
from tests.families.sweep import FAMILIES, WITH_IMAGES, Row, sweep


def main() -> int:
    """Returns 1 where a loss is wrong without a warning, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.families", description=__doc__)
    parser.add_argument("families", nargs="*", help="model types of transformers; all of them by default")
    parser.add_argument("--page", type=Path, help="write the table there")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("rho_score").propagate = False
    torch.set_num_threads(1)
    rows = []
    for family in options.families or [*FAMILIES, *WITH_IMAGES]:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(sweep(family, Path(folder) / "model"))
        print(_told(rows[-1]), flush=True)
    if options.page:
        options.page.write_text(page(rows))
    wrong = [row.family for row in rows if row.is_wrong]
    print(f"{len(rows)} families, {len(wrong)} wrong without a warning{': ' if wrong else ''}{', '.join(wrong)}")
    return 1 if wrong else 0


def _told(row: Row) -> str:
    differences = f"{row.alone:.1e} {row.company:.1e}" if row.is_scored else ""
    return f"{'WRONG ' if row.is_wrong else ''}{row.family:<28} {row.way:<10} {differences:<16} {row.reason[:200]}"


if __name__ == "__main__":
    sys.exit(main())
