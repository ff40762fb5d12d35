"""Write self-contained HTML pages."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from phototag.base.files import write_text


def write_page(path: Path, package: str, template: str, **values: Any) -> None:
    """Render a Jinja template with `values` and write the page.

    The template is in the folder `templates` of `package`, such as phototag.verification, and
    extends this package's `base.html.j2`. Text is escaped; a missing value raises an error.
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
    """Encode an image as JPEG and return it as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, media_type: str) -> str:
    """Return a data URI, which embeds the data of a file in an HTML page."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
