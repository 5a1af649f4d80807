"""The templates of pages."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

__all__ = ["template"]


def template(name: str) -> Template:
    """Return a template of this folder, by its name without ``.html.jinja``; what it is given is escaped."""
    return _environment().get_template(f"{name}.html.jinja")


@cache
def _environment() -> Environment:
    loader = PackageLoader("lightning_opplan.reporting", "")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
