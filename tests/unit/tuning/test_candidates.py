"""Which candidates a tuning has, and how many runs of which length."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rho_score.config import TuneConfig
from rho_score.tuning.candidates import FINALISTS, candidates_of, first_steps, rungs_of, survivors, total_seconds


def _config(**more: object) -> TuneConfig:
    return TuneConfig(model="m", output="o", scores=("s",), eval=("e=t",), **more)  # type: ignore[arg-type]


def test_rules_need_a_base_model_to_be_made_beforehand() -> None:
    assert [c.rule for c in candidates_of(_config())] == ["all", "live-0.3", "live-0.6"]
    tried = candidates_of(_config(base="b", ratio=(0.3,), documents=(0.2,), learning_rate=(1e-4, 1e-3)))
    rules = ["all", "live-0.3", "stored-0.3", "documents-0.2", "documents-0.2-live-0.3"]
    assert [c.name for c in tried] == [f"{rule}-lr-{rate}" for rule in rules for rate in ("0.0001", "0.001")]
    assert [c.is_control for c in tried[:3]] == [True, True, False]


@given(n=st.integers(1, 60), seeds=st.integers(1, 5))
def test_rungs_halve_down_to_the_finalists(n: int, seeds: int) -> None:
    rungs = rungs_of(n, seeds)
    sizes = [rung.n_candidates for rung in rungs]
    assert sizes[0] == n
    assert sizes[-1] == min(n, FINALISTS + 1)
    assert all(b == max(FINALISTS + 1, -(-a // 2)) for a, b in itertools.pairwise(sizes))
    assert [rung.doublings for rung in rungs] == list(range(len(rungs)))
    assert [rung.n_seeds for rung in rungs] == [1] * (len(rungs) - 1) + [seeds]


@given(n=st.integers(2, 40), step_s=st.floats(0.01, 10), start_s=st.floats(0, 20), steps=st.integers(8, 5000))
def test_the_runs_take_the_time_that_is_given(n: int, step_s: float, start_s: float, steps: int) -> None:
    rungs = rungs_of(n, 3)
    budget = total_seconds(rungs, steps=steps, step_s=step_s, start_s=start_s)
    runs = [(r.n_seeds, steps * 2**r.doublings) for r in rungs for _ in range(r.n_candidates)]
    assert budget == pytest.approx(sum(seeds * (start_s + s * step_s) for seeds, s in runs))
    assert first_steps(rungs, budget_s=budget, step_s=step_s, start_s=start_s) == pytest.approx(steps, rel=1e-6)


def test_the_best_control_stays() -> None:
    every = candidates_of(_config(ratio=(0.1, 0.2, 0.3), learning_rate=(1e-4, 1e-3)))
    controls, others = every[:2], every[2:]
    ranked = [*others, controls[1], controls[0]]
    assert survivors(ranked, 3) == [*others[:2], controls[1]]
    assert survivors([controls[0], *others, controls[1]], 3) == [controls[0], *others[:2]]
