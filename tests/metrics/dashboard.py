"""What the dashboard asks Prometheus."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[2] / "deploy/grafana/rho-score.json"


def dashboard() -> dict[str, Any]:
    """The model of the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_bytes())
    return found


def expressions() -> Iterator[str]:
    """The expression of every query of every panel."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
