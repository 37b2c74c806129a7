"""Pages from templates: every value is escaped, and a value that a template misses is an error."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from rbft import __version__


def render(template: str, **values: Any) -> str:
    """A page; the version of the package is known to all of them."""
    environment = Environment(
        loader=PackageLoader("rbft", "report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "not defined" if value is None else f"{value:.1%}"
    return environment.get_template(template).render(version=__version__, **values)
