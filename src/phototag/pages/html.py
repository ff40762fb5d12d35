"""Self-contained HTML pages from the rooms' templates."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from phototag.base.files import write_text


def write_page(path: Path, room: str, template: str, **values: Any) -> None:
    """Fill a template and write the page.

    Args:
        path: The HTML file.
        room: The package whose `templates/` holds the template, such as phototag.verification.
        template: Its name; it extends `base.html.j2` of this room.
        values: What the template names; a missing one is an error, and text is escaped.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room), PackageLoader("phototag.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template(template).render(values))
