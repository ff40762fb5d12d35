"""The text of an XMP sidecar: write predicted labels into it, and remove them again.

A predicted label becomes a keyword under the parent keyword `phototag`, and it is listed in a
separate property, so that only keywords written by phototag are ever changed or removed. All other
bytes of a sidecar stay as they are.
"""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from xml.sax.saxutils import escape, quoteattr

from phototag.base.errors import InputError
from phototag.importers.keywords import (
    DC,
    FLAT,
    LIGHTROOM,
    PARENT,
    PATHS,
    WRITTEN,
    Keywords,
    split_path,
)
from phototag.importers.xmp import RDF, Edit, Element, Packet, parse_packet
from phototag.verification.labels import normalize

HIERARCHICAL = f"{LIGHTROOM} hierarchicalSubject"
NEW = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="phototag">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
"""
_TAGS = {
    FLAT: "dc:subject",
    HIERARCHICAL: "lr:hierarchicalSubject",
    WRITTEN: "phototag:keywords",
}
_NAMESPACES = {"dc": DC, "lr": LIGHTROOM, "phototag": WRITTEN.split(" ")[0], "rdf": RDF}


def set_keywords(data: bytes, labels: Sequence[str], other: Keywords | None = None) -> bytes:
    """Return the content of a sidecar with the given predicted labels, and no others.

    A label is not written if the user has entered this keyword, or has removed it since phototag
    wrote it. If nothing needs to be changed, `data` is returned.

    Args:
        data: Content of the sidecar; b"" for a new one.
        labels: Predicted labels; [] to remove all keywords that phototag wrote.
        other: Keywords in the photo and in its other sidecar.

    Returns:
        New content, or b"" if phototag created the sidecar and nothing else is in it.

    Raises:
        InputError: The sidecar cannot be read or extended. The message does not name the file.
    """
    old = parse_packet(data or NEW)
    if old.data != (data or NEW):
        raise InputError(f"not {old.encoding} text throughout")
    keywords, written = _read(old), _list_written(old)
    all_keywords = deepcopy(other or Keywords())
    all_keywords.add(old)
    entered = {name.casefold() for name in all_keywords.human}
    removed = keywords.written.difference(*written.values())
    known = [label for label in map(normalize, labels) if label.casefold() not in entered]
    new = _remove(old)
    if known:
        new = _add(new, known, [label for label in known if label not in removed])
    if (_read(new).written, _list_written(new)) == (keywords.written, written):
        return data
    return b"" if new.text == NEW else new.data


def _read(packet: Packet) -> Keywords:
    keywords = Keywords()
    keywords.add(packet)
    return keywords


def _find_written(packet: Packet, name: str) -> Iterator[tuple[Element, str]]:
    """Yield the list items of a property that phototag wrote, and their labels."""
    keywords = _read(packet)
    own = keywords.written - (keywords.human if name == FLAT else set())
    for found in packet.find(name):
        for item in found.container.children if found.container else ():
            *parents, label = split_path(item.text, PATHS.get(name, "\n")) or [""]
            if label in own and parents == ([PARENT] if name in PATHS else []):
                yield item, label


def _list_written(packet: Packet) -> dict[str, set[str]]:
    """Return the labels that phototag wrote into each list of keywords."""
    found = {name: {label for _, label in _find_written(packet, name)} for name in (FLAT, *PATHS)}
    return {name: labels for name, labels in found.items() if labels}


def _remove(packet: Packet) -> Packet:
    """Remove all that phototag wrote."""
    edits: list[Edit] = []
    names = (FLAT, *PATHS, WRITTEN)
    removed = {id(item) for name in names for item, _ in _find_written(packet, name)}
    for node in packet.rdf.children:
        is_own = any(child.name == WRITTEN for child in node.children)
        parts: list[Edit] = []
        left = [child for child in node.children if child.name not in names]
        for child in node.children:
            items = child.container.children if child.container else []
            gone = [item for item in items if id(item) in removed]
            if child.name == WRITTEN or (gone and is_own and len(gone) == len(items)):
                parts.append(_cut(packet, child))
                continue
            left += [child] if child.name in names else []
            parts += [_cut(packet, item) for item in gone]
            if gone and len(gone) == len(items) and child.container:
                parts += _collapse(packet, child.container)
        if is_own and not left and set(node.attributes) <= {"about", f"{RDF} about"}:
            parts = [_cut(packet, node)]
            if len(packet.rdf.children) == 1:
                parts += _collapse(packet, packet.rdf)
        edits += parts
    return packet.edit(edits)


def _cut(packet: Packet, element: Element) -> Edit:
    """Return the edit that removes an element and the white space before it."""
    before = packet.text[: element.start]
    return len(before.rstrip()), element.end, b""


def _collapse(packet: Packet, element: Element) -> list[Edit]:
    """Return the edits that close an empty element as before `_insert`: `<rdf:Bag/>`."""
    if not packet.text[: element.end].endswith(b" >"):
        return []
    return [(element.inner - 1, element.inner, b"/>"), (element.close, element.end, b"")]


def _insert(packet: Packet, element: Element, parts: Sequence[str], space: str = "") -> Edit:
    """Return the edit that appends elements, after the same white space as the last element.

    If there is no element, `space` is written before each part.
    """
    if element.children:
        last = element.children[-1]
        before = packet.text[: last.start]
        space = before[len(before.rstrip()) :].decode()
        return last.end, last.end, "".join(space + part for part in parts).encode()
    content = "".join(space + part for part in parts).encode()
    if element.close < element.end:
        return element.inner, element.inner, content
    # `_collapse` recognises the space in the end tag.
    end = f"</{_read_tag(packet, element)} >".encode()
    return element.inner - 2, element.inner, b">" + content + end


def _read_tag(packet: Packet, element: Element) -> str:
    """Return the name of an element as it is written, with its prefix."""
    return re.split(rb"[\s/>]", packet.text[element.start + 1 : element.inner])[0].decode()


def _add(packet: Packet, known: Sequence[str], shown: Sequence[str]) -> Packet:
    """Add the labels `shown` to the keywords, and list the labels `known` as written by phototag.

    A list that does not exist is only created if it hides no keyword of the user: darktable and
    digiKam ignore keywords without parents if there is a list of keywords with parents.
    """
    edits: list[Edit] = []
    created = {WRITTEN: list(known)}
    has_keywords = bool(_read(packet).human)
    for name in (FLAT, *PATHS):
        separator = PATHS.get(name, "")
        start = f"{PARENT}{separator}" if separator else ""
        texts = [start + label for label in shown if not separator or separator not in label]
        lists = [found.container for found in packet.find(name) if found.container]
        if not texts:
            continue
        if lists:
            tag = re.sub(r"[^:]+$", "li", _read_tag(packet, lists[0]))  # with the same prefix
            items = [f"<{tag}>{escape(text)}</{tag}>" for text in texts]
            edits.append(_insert(packet, lists[0], items))
        elif name == FLAT and packet.list_values(FLAT):
            raise InputError("dc:subject is not a list of keywords (rdf:Bag)")
        elif name == FLAT or (name == HIERARCHICAL and not has_keywords):
            created[name] = texts
    newline = "\r\n" if b"\r\n" in packet.text else "\n"
    lines = _describe(packet, created)
    edits.append(_insert(packet, packet.rdf, [f"{newline}  ".join(lines)], f"{newline}  "))
    return packet.edit(edits)


def _describe(packet: Packet, lists: dict[str, list[str]]) -> list[str]:
    """Return the lines of an rdf:Description with lists of keywords."""
    nodes = packet.rdf.children
    about = nodes[0].attributes.get(f"{RDF} about", "") if nodes else ""
    prefixes = {_TAGS[name].split(":")[0] for name in lists} | {"rdf"}
    spaces = [f"xmlns:{prefix}={quoteattr(_NAMESPACES[prefix])}" for prefix in sorted(prefixes)]
    lines = [f"<rdf:Description rdf:about={quoteattr(about)}", *(f"  {one}" for one in spaces)]
    lines[-1] += ">"
    for name, texts in lists.items():
        items = [f"   <rdf:li>{escape(text)}</rdf:li>" for text in texts]
        tag = _TAGS[name]
        lines += [f" <{tag}>", "  <rdf:Bag>", *items, "  </rdf:Bag>", f" </{tag}>"]
    return [*lines, "</rdf:Description>"]
