"""`rho-score select` as a Ray job: `ray job submit --working-dir . -- python ray_jobs/select.py …`, with the same arguments."""

import sys

if __name__ == "__main__":
    from rho_score.cli import run_job

    run_job(__file__)
elif __name__ == "select":  # this folder is on the path of every job, and a library imports the standard `select`
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = __file__.rpartition("/")[0]
    spec = PathFinder.find_spec(__name__, [folder for folder in sys.path if folder.rstrip("/") != here])
    if spec is None or spec.loader is None:
        raise ImportError(f"{__file__} hides the standard library's module {__name__}. Submit the folder above it.")
    sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])
