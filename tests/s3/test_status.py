"""The status of a store on a real S3 server, which tells the time."""

import time

import pytest

from rho_score.config import StatusConfig
from rho_score.files.folder import Folder
from rho_score.stores import signs
from rho_score.stores.signs import RUNS, signs_of_life
from rho_score.watching import job
from rho_score.watching.job import StatusSummary, status
from tests.faults import FaultyProxy, Rule
from tests.stores import cut, random_documents, write_scores

URL = "s3://rho/status"


@pytest.fixture(scope="module")
def store(s3: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An unfinished score set in the bucket, with one of three units."""
    made = write_scores(
        tmp_path_factory.mktemp("made") / "s", [cut([a for a, _ in random_documents(12, seed=1)], [4] * 3)]
    )
    names = ["manifest.json", "plan.parquet", f"data/{min((made / 'data').iterdir()).name}"]
    for name in names:
        Folder(URL).publish(name, (made / name).read_bytes())
    return Folder(URL)


@pytest.fixture
def begun(store: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The store with the sign of one run elsewhere that has just begun, and does not end."""
    for name in store.names(RUNS):
        store.remove(f"{RUNS}/{name}")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(signs.socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(KeyboardInterrupt), signs_of_life(store, "score"):
            raise KeyboardInterrupt
    (name,) = store.names(RUNS)
    store.publish(f"{RUNS}/{name}", store.read(f"{RUNS}/{name}").replace(b'"interrupted"', b"null"))
    return store


def _status_by(monkeypatch: pytest.MonkeyPatch, ahead_s: float) -> StatusSummary:
    """The status as a machine sees it whose clock is ahead."""
    now = time.time
    with monkeypatch.context() as wrong:
        wrong.setattr(job, "wall_clock", lambda: now() + ahead_s)
        return status(StatusConfig(output=URL))


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -3600.0])
def test_a_living_run_is_alive_whatever_the_clock_here_says(
    begun: Folder, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    found = _status_by(monkeypatch, ahead_s)
    assert found.state == "running"
    assert (found.contents.done, found.contents.of) == (1, 3)
    assert (found.clock_ahead_s is None) == (ahead_s == 0)
    assert found.clock_ahead_s is None or found.clock_ahead_s == pytest.approx(ahead_s, abs=30)


def test_the_storage_tells_its_time(begun: Folder) -> None:
    (name,) = begun.names(RUNS)
    assert begun.clock(f"{RUNS}/{name}") == pytest.approx(time.time(), abs=30)
    assert begun.listing(RUNS)[name].modified == pytest.approx(time.time(), abs=30)


def test_without_the_time_of_the_storage_the_clock_here_does(
    begun: Folder, s3: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.failing(Rule("error", "HEAD", RUNS, 403, "AccessDenied")):
        assert _status_by(monkeypatch, 0.0).state == "running"
        assert _status_by(monkeypatch, 3600.0).state == "dead"


def test_a_refused_sign_is_tried_once_and_ends_nothing(store: Folder, s3: FaultyProxy) -> None:
    rule = Rule("error", "PUT", RUNS)
    with s3.failing(rule), signs_of_life(store, "score"):
        pass
    assert 1 <= rule.fired <= 2, "the first and the last sign, each once"
