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
    script = Markup(environment.get_template("report.js").render())
    page = environment.get_template(template).render(
        style=style, style_sha256=_sha256(style), script=script, script_sha256=_sha256(script), **content
    )
    folder, name = file_at(output)
    folder.publish(name, page.encode("utf-8", "replace"))
    return output


def _sha256(text: str) -> str:
    """The hash by which a page's policy names its one style and its one script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
