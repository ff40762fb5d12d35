"""Render and write self-contained HTML pages."""

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from phototag.base.files import write_text
from phototag.pages.escaping import escape_markdown


def write_page(path: Path, package: str, template: str, **values: Any) -> None:
    """Render a template that extends this package's `base.html.j2`, and write the page.

    The page starts with a list of contents: the headings `<h2 id="...">` of the template.
    """
    write_text(path, render_html(package, template, **values))


def render_html(package: str, template: str, **values: Any) -> str:
    """Render a Jinja template in the folder `templates` of `package`, such as phototag.review.

    Text is escaped, except in Markdown: a template whose name ends with `.md.j2` uses the filter
    `markdown`. A missing value raises an error.
    """
    return _environment(package).get_template(template).render(values)


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("phototag.pages")]),
        autoescape=lambda name: not str(name).endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"headings": find_headings, "markdown": escape_markdown}
    return environment


def find_headings(html: str) -> list[tuple[str, str]]:
    """Return the id and the HTML text of each `<h2 id="...">` element."""
    return re.findall(r'<h2 id="([^"]+)">(.*?)</h2>', html)


def jpeg_uri(image: Image.Image) -> str:
    """Encode an image as JPEG and return it as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, media_type: str) -> str:
    """Return a data URI, which embeds the data of a file in an HTML page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
