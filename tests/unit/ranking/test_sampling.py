import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rho_score.ranking.sampling import gumbel, uniforms

MASK = (1 << 64) - 1


def _splitmix(state: int, n: int) -> list[float]:
    """The generator as its authors wrote it, with Python's integers."""
    out = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append((((z ^ (z >> 31)) >> 11) + 0.5) * 2.0**-53)
    return out


def test_numbers_of_the_generator() -> None:
    assert [int(x * 2**53) for x in _splitmix(1234567, 2)] == [6457827717110365317 >> 11, 3203168211198807973 >> 11]


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 6)), max_size=8), st.text(max_size=3))
def test_they_depend_on_seed_document_and_place_alone(documents: list[tuple[str, int]], seed: str) -> None:
    ids, lengths = [d for d, _ in documents], np.array([n for _, n in documents], np.int64)
    found = uniforms(seed, ids, lengths)
    alone = [uniforms(seed, [d], np.array([n + 3]))[:n] for d, n in documents]
    assert np.array_equal(found, np.concatenate([np.zeros(0), *alone]))
    assert ((found > 0) & (found < 1)).all()


def test_they_are_even_and_independent() -> None:
    x = uniforms("7", [f"d{i}" for i in range(100)], np.full(100, 1000))
    assert abs(np.histogram(x, 20, (0, 1))[0] / 5000 - 1).max() < 0.06
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(x, uniforms("8", [f"d{i}" for i in range(100)], np.full(100, 1000)))[0, 1]) < 0.02


def test_the_largest_with_gumbel_noise_are_a_draw_by_weight() -> None:
    scores = np.log(np.array([1.0, 2.0, 3.0, 4.0]))
    noise = gumbel(uniforms("0", [str(i) for i in range(20_000)], np.full(20_000, 4))).reshape(-1, 4)
    first = np.argmax(scores + noise, axis=1)
    np.testing.assert_allclose(np.bincount(first) / len(first), [0.1, 0.2, 0.3, 0.4], atol=0.015)
