"""Renders a page as one file that needs no network, and publishes it."""

import base64
import hashlib
from typing import Any

import jinja2
from markupsafe import Markup

from rho_score.files.folder import file_at
from rho_score.reporting import heatmap


def publish_page(output: str, template: str, **content: Any) -> str:
    """Writes a page made from a template and its content; returns its path or URL."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rho_score.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    style = Markup(environment.get_template("report.css").render()) + heatmap.STYLE
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template(template).render(style=style, style_sha256=sha256, **content)
    folder, name = file_at(output)
    folder.publish(name, page.encode("utf-8", "replace"))
    return output
