"""Self-contained HTML pages from the templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from phototag.files import write_text


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template and write the page.

    Args:
        path: The HTML file.
        template: Its name in phototag/templates.
        values: What the template names; a missing one is an error, and text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("phototag"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template(template).render(values))
