"""Processes and nodes die at seeded moments; every published byte must be that of an undisturbed run."""
