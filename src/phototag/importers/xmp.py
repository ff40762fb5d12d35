"""XMP packets: the metadata in sidecars and photos, with the place of each element in the text.

XMP is RDF in XML. Elements know their place, so that a writer can insert or remove single elements
and leave all other bytes as they are; an XML library would write the whole document anew.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from xml.parsers import expat

from phototag.base.errors import InputError

MAX_BYTES = 64 * 2**20
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
CONTAINERS = (f"{RDF} Bag", f"{RDF} Seq", f"{RDF} Alt")
Edit = tuple[int, int, bytes]  # start and end of a part of the text, and the new part
_MARKS = {  # byte order marks, and "<" in UTF-16 without a mark
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*\sencoding\s*=\s*["']([\w.-]+)""")
# A start tag; values in quotation marks may contain ">".
_TAG = re.compile(rb"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")


@dataclass(eq=False)
class Element:
    """An XML element, and its offsets in the text of a packet.

    Attributes:
        name: Namespace and local name, separated by a space.
        attributes: Name -> value; names in a namespace are written as in `name`.
        start: Offset of the start tag.
        inner: Offset of the content, after the start tag.
        close: Offset of the end tag; equal to `end` in a tag such as `<rdf:Bag/>`.
        end: Offset after the element.
        children: Elements in the content.
        text: Characters in the content, without those of the children.
    """

    name: str
    attributes: dict[str, str]
    start: int
    inner: int
    close: int = 0
    end: int = 0
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    @property
    def container(self) -> "Element | None":
        """The list (rdf:Bag, rdf:Seq or rdf:Alt) in a property, or None."""
        return next((child for child in self.children if child.name in CONTAINERS), None)


@dataclass(frozen=True)
class Packet:
    """A parsed XMP packet.

    Attributes:
        text: The packet without byte order mark, encoded in UTF-8.
        rdf: The element rdf:RDF, with offsets in `text`.
        encoding: Encoding of the file.
        mark: Byte order mark of the file, or b"".
    """

    text: bytes
    rdf: Element
    encoding: str = "utf-8"
    mark: bytes = b""

    def find(self, name: str) -> Iterator[Element]:
        """Yield the properties with a name, which are elements of any rdf:Description."""
        for node in self.rdf.children:
            yield from (child for child in node.children if child.name == name)

    def list_values(self, name: str) -> list[str]:
        """Return the values of a property, which is a list, a text or an attribute."""
        values = [node.attributes[name] for node in self.rdf.children if name in node.attributes]
        for found in self.find(name):
            items = found.container.children if found.container else [found]
            values += [item.text for item in items]
        return [value.strip() for value in values if value.strip()]

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return self.mark + self.text.decode().encode(self.encoding, "xmlcharrefreplace")

    def edit(self, edits: Iterable[Edit]) -> "Packet":
        """Return the packet in which parts of the text are replaced; the parts may not overlap."""
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new + text[end:]
        return parse_packet(replace(self, text=text).data)


def parse_packet(data: bytes) -> Packet:
    """Parse the bytes of a sidecar, or an XMP packet in a photo.

    Raises:
        InputError: The bytes are not an XMP packet. The message does not name the file.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES // 2**20} MiB")
    if not data.strip(b"\0 \t\r\n"):
        raise InputError("empty, expected XMP")
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    declared = _DECLARED.match(data)
    encoding = _MARKS.get(mark) or (declared[1].decode().lower() if declared else "utf-8")
    if b"<" in mark:
        mark = b""
    try:
        text = data.removeprefix(mark).decode(encoding).encode()
    except (LookupError, UnicodeError) as error:
        raise InputError(f"not {encoding} text ({error})") from None
    root = _parse_xml(text)
    tops = [root, *root.children]
    if rdf := next((element for element in tops if element.name == f"{RDF} RDF"), None):
        return Packet(text, rdf, encoding, mark)
    raise InputError(f"no XMP: expected the element rdf:RDF, not {root.name.split(' ')[-1]!r}")


def _parse_xml(text: bytes) -> Element:
    """Parse XML and return its root; refuse a DOCTYPE, whose entities may expand without limit."""
    parser = expat.ParserCreate("utf-8", " ")  # the declared encoding is that of the file
    root = Element("", {}, 0, 0)
    path = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        offset = parser.CurrentByteIndex
        tag = _TAG.match(text, offset)
        element = Element(name, attributes, offset, tag.end() if tag else offset)
        path[-1].children.append(element)
        path.append(element)

    def end(_: str) -> None:
        element = path.pop()
        if text[element.inner - 2 : element.inner] == b"/>":
            element.close = element.end = element.inner
        else:
            element.close = parser.CurrentByteIndex
            element.end = text.index(b">", element.close) + 1

    def add(characters: str) -> None:
        path[-1].text += characters

    def refuse(*_: object) -> None:
        raise InputError("declares a DOCTYPE, which XMP does not allow")

    parser.buffer_text, parser.buffer_size = True, max(len(text), 1)
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = add, refuse
    try:
        parser.Parse(text.rstrip(b"\0"), True)
    except expat.ExpatError as error:
        raise InputError(f"not XML ({error})") from None
    return root.children[0]
