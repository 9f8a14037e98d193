"""`rho-score select` as a Ray job: `ray job submit --working-dir . -- python ray_jobs/select.py …`; the same arguments."""

import sys

if (
    __name__ == "select"
):  # this folder is a job's working directory, and somebody imports the standard library's `select`
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = __file__.rpartition("/")[0]
    spec = PathFinder.find_spec(__name__, [folder for folder in sys.path if folder.rstrip("/") != here])
    if spec is None or spec.loader is None:
        raise ImportError(f"{__file__} hides the standard library's module {__name__}. Submit the folder above it.")
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])

if __name__ == "__main__":
    # Not this folder but the one above: rho_score is there, and select.py here would hide the standard library's `select`.
    # Nothing else may be imported before.
    sys.path[0] = sys.path[0].rpartition("/")[0] or "."

    from rho_score.cli import run

    run(["select", *sys.argv[1:]])
