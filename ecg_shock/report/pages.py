"""Render HTML pages as single files, which load nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from ecg_shock.report.formats import printable


def render_page(name: str, view: Mapping[str, Any]) -> str:
    """Render a page of one file from its template, and from its style and script, if it has these.

    A page `name` has the template ``name.html``, the style ``name.css`` after the style of the report, and the script
    ``name.js``. No other script may run. Values are escaped, and characters that are not printable are shown as codes.
    """
    loader = jinja2.PackageLoader("ecg_shock.report")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    known = loader.list_templates()
    styles = [file for file in dict.fromkeys(("report.css", f"{name}.css")) if file in known]
    style = "".join(loader.get_source(environment, file)[0] for file in styles)
    script = loader.get_source(environment, f"{name}.js")[0] if f"{name}.js" in known else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(f"{name}.html").render(
        style=Markup(style), script=Markup(script), digest=Markup(digest), **view
    )
