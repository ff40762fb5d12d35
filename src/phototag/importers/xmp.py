"""XMP packets: the metadata in sidecars and photos, with the place of each element in the text.

XMP is RDF in XML. Elements know their place, so that a writer can insert or remove single elements
and leave all other bytes as they are; an XML library would write the whole document anew.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from phototag.base.errors import InputError

MAX_BYTES = 64 * 2**20
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
CONTAINERS = (f"{RDF} Bag", f"{RDF} Seq", f"{RDF} Alt")
Edit = tuple[int, int, str]  # start and end of a part of the text, and the new part
# A start tag and its name; values in quotation marks may contain ">".
_TAG = re.compile(rb"""<([^\s/>]+)(?:[^<>"']|"[^"]*"|'[^']*')*>""")


@dataclass(eq=False)
class Element:
    """An XML element, and its offsets in the text of a packet.

    Attributes:
        name: Namespace and local name, separated by a space.
        attributes: Name -> value; names in a namespace are written as in `name`.
        tag: Prefix and local name, as written in the text.
        start: Offset of the start tag.
        inner: Offset of the content, after the start tag.
        end: Offset after the element; equal to `inner` for a tag such as `<rdf:Bag/>`.
        children: Elements in the content.
        text: Characters in the content, without those of the children.
    """

    name: str
    attributes: dict[str, str]
    tag: str = ""
    start: int = 0
    inner: int = 0
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
        text: The packet, encoded in UTF-8.
        rdf: The element rdf:RDF, with offsets in `text`.
    """

    text: bytes
    rdf: Element

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

    def edit(self, edits: Iterable[Edit]) -> "Packet":
        """Return the packet in which parts of the text are replaced; the parts may not overlap."""
        text = self.text
        for start, end, new in sorted(edits, reverse=True):
            text = text[:start] + new.encode() + text[end:]
        return parse_packet(text)


def parse_packet(text: bytes) -> Packet:
    """Parse the bytes of a sidecar, or an XMP packet in a photo.

    Raises:
        InputError: The bytes are not an XMP packet in UTF-8. The message does not name the file.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES // 2**20} MiB")
    root = _parse_xml(text)
    tops = [root, *root.children]
    if rdf := next((element for element in tops if element.name == f"{RDF} RDF"), None):
        return Packet(text, rdf)
    raise InputError(f"no XMP: expected the element rdf:RDF, not {root.name.split(' ')[-1]!r}")


def _parse_xml(text: bytes) -> Element:
    """Parse XML and return its root; refuse a DOCTYPE, whose entities may expand without limit."""
    parser = expat.ParserCreate("utf-8", " ")
    root = Element("", {})
    path = [root]

    def declare(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding and encoding.lower() != "utf-8":
            raise InputError(f"encoded in {encoding}, expected UTF-8")

    def start(name: str, attributes: dict[str, str]) -> None:
        tag = _TAG.match(text, parser.CurrentByteIndex)
        if tag is None:
            raise InputError(f"a tag cannot be read at byte {parser.CurrentByteIndex}")
        element = Element(name, attributes, tag[1].decode(), tag.start(), tag.end())
        path[-1].children.append(element)
        path.append(element)

    def end(_: str) -> None:
        element = path.pop()
        element.end = parser.CurrentByteIndex
        if text[element.inner - 2 : element.inner] != b"/>":
            element.end = text.index(b">", element.end) + 1

    def add(characters: str) -> None:
        path[-1].text += characters

    def refuse(*_: object) -> None:
        raise InputError("declares a DOCTYPE, which XMP does not allow")

    parser.buffer_text, parser.buffer_size = True, max(len(text), 1)
    parser.XmlDeclHandler, parser.StartDoctypeDeclHandler = declare, refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = add
    try:
        parser.Parse(text.rstrip(b"\0"), True)
    except expat.ExpatError as error:
        raise InputError(f"not XML in UTF-8 ({error})") from None
    return root.children[0]
