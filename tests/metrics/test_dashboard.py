"""The dashboard against Grafana's own types."""

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.metrics.dashboard import dashboard


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    register_default_plugins()
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard())))
    assert list(_lost(dashboard(), read, "dashboard")) == []


def test_a_field_that_grafana_does_not_know_is_found() -> None:
    register_default_plugins()
    wrong = dashboard()
    wrong["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(wrong)))
    assert list(_lost(wrong, read, "dashboard")) == ["dashboard.panels.1.fieldConfig.defaults.units"]


def _lost(given: Any, read: Any, place: str) -> list[str]:
    """The places whose values did not survive; what Grafana adds are defaults."""
    if isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        return [lost for n, (a, b) in enumerate(zip(given, read, strict=True)) for lost in _lost(a, b, f"{place}.{n}")]
    if isinstance(given, dict) and isinstance(read, dict):
        return [lost for name, a in given.items() for lost in _lost(a, read.get(name), f"{place}.{name}")]
    return [] if given == read else [place]
