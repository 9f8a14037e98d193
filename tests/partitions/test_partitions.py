"""A short form of `make partitions`: a host that is cut off, and packets that are lost, cost no byte."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.runs import prepare
from tests.partitions.faults import FAULTS, Command, Fault, run
from tests.partitions.hosts import HostsCluster, missing

if why := missing():
    pytest.skip(f"{why}; `make partitions` needs it", allow_module_level=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hosts")
    prepare(root)
    return root


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[HostsCluster]:
    with HostsCluster(root, pace_s=0.2) as cluster:
        for name in ("score", "select"):
            run(cluster, root, name, None, root / f"peace-{name}")
        yield cluster


SHORT = {("cut off for 5 s", "score"), ("loses 10 %", "select")}


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        pytest.param(
            fault, name, id=f"{fault.name}-{name}",
            marks=() if any(words in fault.name and name == short for words, short in SHORT) else pytest.mark.long,
        )
        for fault in FAULTS
        for name in ("score", "select")
    ],
)  # fmt: skip
def test_what_breaks_costs_no_byte(cluster: HostsCluster, root: Path, fault: Fault, name: Command) -> None:
    outcome = run(cluster, root, name, fault, root / f"{name}-{FAULTS.index(fault)}")
    assert outcome.same
    said = (root / f"{name}-{FAULTS.index(fault)}-1.log").read_text()
    rates = [int(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) tokens/s", said)]
    assert max(rates, default=0) < 1e6, said  # whatever the clocks of the hosts say
