"""Tries rules of selection in short runs. The one room above the jobs: it calls `select` and `train`."""
