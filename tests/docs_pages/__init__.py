"""The pages of `docs/reference/` that are generated from the code."""

from pathlib import Path

from tests.docs_pages.api import api_page
from tests.docs_pages.commands import cli_page, config_page
from tests.docs_pages.metrics import metrics_page

ROOT = Path(__file__).parents[2]
PAGES = {
    "docs/reference/cli.md": cli_page,
    "docs/reference/config.md": config_page,
    "docs/reference/api.md": api_page,
    "docs/reference/metrics.md": metrics_page,
}
