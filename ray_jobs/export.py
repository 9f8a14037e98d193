"""`rho-score export` as a Ray job: `ray job submit --working-dir . -- python ray_jobs/export.py …`; the same arguments."""

import sys

# Not this folder but the one above: rho_score is there, and select.py here would hide the standard library's `select`.
# Nothing else may be imported before.
sys.path[0] = sys.path[0].rpartition("/")[0] or "."

from rho_score.cli import run

if __name__ == "__main__":
    run(["export", *sys.argv[1:]])
