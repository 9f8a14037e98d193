"""`rho-score prior` as a Ray job: `ray job submit --working-dir . -- python ray_jobs/prior.py …`, with the same arguments."""

from rho_score.cli import run_job

run_job(__file__)
