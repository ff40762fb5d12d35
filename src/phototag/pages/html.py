"""HTML pages that need no other file."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from phototag.base.files import write_text


def write_page(path: Path, package: str, template: str, **values: Any) -> None:
    """Render a template and write the page.

    The template lies in the folder `templates` of a package such as phototag.verification, and
    extends `base.html.j2` of this package. Text in `values` is escaped; a missing one is an error.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("phototag.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template(template).render(values))


def jpeg_uri(image: Image.Image) -> str:
    """Return a photo as a JPEG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, media_type: str) -> str:
    """Return a data URI, which embeds an image in a page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
