"""The text of an XMP sidecar: write predicted labels into it, and remove them again.

A predicted label becomes a keyword under the parent keyword `phototag`, and it is listed in a
separate property, so that only keywords written by phototag are ever changed or removed. All other
bytes of a sidecar stay as they are.
"""

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
_NAMESPACES = {"rdf": RDF, "dc": DC, "lr": LIGHTROOM, "phototag": WRITTEN.split(" ")[0]}


def set_keywords(
    data: bytes | None, labels: Sequence[str], other: Keywords | None = None
) -> bytes | None:
    """Return the content of a sidecar with the given predicted labels, and no others.

    A label is not written if the user has entered this keyword, or has removed it since phototag
    wrote it. If nothing needs to be changed, `data` is returned.

    Args:
        data: Content of the sidecar; None for a new one.
        labels: Predicted labels; [] to remove all keywords that phototag wrote.
        other: Keywords in the photo and in its other sidecar.

    Returns:
        New content, or None if phototag created the sidecar and nothing else is in it.

    Raises:
        InputError: The sidecar cannot be read or extended. The message does not name the file.
    """
    old = parse_packet(NEW if data is None else data)
    keywords = deepcopy(other or Keywords())
    keywords.add(old)
    entered = {name.casefold() for name in keywords.human}
    written = _list_written(old)
    shown = {label for name, labels in written.items() if name != WRITTEN for label in labels}
    removed = written.get(WRITTEN, set()) - shown
    known = [label for label in map(normalize, labels) if label.casefold() not in entered]
    new = _remove(old)
    if known:
        new = _add(new, known, [label for label in known if label not in removed])
    if _list_written(new) == written:
        return data
    return None if new.text == NEW else new.text


def _read(packet: Packet) -> Keywords:
    keywords = Keywords()
    keywords.add(packet)
    return keywords


def _find_written(packet: Packet) -> Iterator[tuple[str, Element, str]]:
    """Yield the property, the element and the label of each list item that phototag wrote."""
    keywords = _read(packet)
    for name in (FLAT, *PATHS, WRITTEN):
        own = keywords.written - (keywords.human if name == FLAT else set())
        for found in packet.find(name):
            for item in found.container.children if found.container else ():
                *parents, label = split_path(item.text, PATHS.get(name, "\n")) or [""]
                if label in own and parents == ([PARENT] if name in PATHS else []):
                    yield name, item, label


def _list_written(packet: Packet) -> dict[str, set[str]]:
    """Return the labels that phototag wrote into each list."""
    labels: dict[str, set[str]] = {}
    for name, _, label in _find_written(packet):
        labels.setdefault(name, set()).add(label)
    return labels


def _remove(packet: Packet) -> Packet:
    """Remove all that phototag wrote, with the properties and nodes that are empty without it."""
    edits: list[Edit] = []
    removed = {id(item) for _, item, _ in _find_written(packet)}
    for node in packet.rdf.children:
        cuts: list[Element] = []
        for child in node.children:
            items = child.container.children if child.container else []
            gone = [item for item in items if id(item) in removed]
            is_empty = child.name == WRITTEN or (gone and len(gone) == len(items))
            cuts += [child] if is_empty else gone
        if cuts and cuts == node.children and set(node.attributes) <= {"about", f"{RDF} about"}:
            cuts = [node]
        for element in cuts:
            before = packet.text[: element.start].rstrip()
            edits.append((len(before), element.end, ""))
    return packet.edit(edits)


def _insert(packet: Packet, element: Element, parts: Sequence[str], space: str = "") -> Edit:
    """Return the edit that appends elements, after the same white space as the last element.

    If there is no element, `space` is written before each part.
    """
    end, start_tag = element.inner, packet.text[element.start : element.inner]
    if element.children:
        last = element.children[-1]
        before = packet.text[: last.start]
        end, space = last.end, before[len(before.rstrip()) :].decode()
    content = "".join(space + part for part in parts)
    if start_tag.endswith(b"/>"):
        return end - 2, end, f">{content}</{element.tag}>"
    return end, end, content


def _add(packet: Packet, known: Sequence[str], shown: Sequence[str]) -> Packet:
    """Add the labels `shown` to the keywords, and list the labels `known` as written by phototag.

    A list that does not exist is only created if it hides no keyword of the user: darktable and
    digiKam ignore keywords without parents if there is a list of keywords with parents.
    """
    edits: list[Edit] = []
    created = {WRITTEN: known}
    has_keywords = bool(_read(packet).human)
    for name in (FLAT, *PATHS):
        separator = PATHS.get(name, "")
        start = f"{PARENT}{separator}" if separator else ""
        texts = [start + label for label in shown if not separator or separator not in label]
        container = next((found.container for found in packet.find(name)), None)
        if not texts:
            continue
        if container:
            tag = container.tag.replace(container.name.split(" ")[1], "li")  # with the same prefix
            items = [f"<{tag}>{escape(text)}</{tag}>" for text in texts]
            edits.append(_insert(packet, container, items))
        elif name == FLAT and packet.list_values(FLAT):
            raise InputError("dc:subject is not a list of keywords (rdf:Bag)")
        elif name == FLAT or (name == HIERARCHICAL and not has_keywords):
            created[name] = texts
    edits.append(_insert(packet, packet.rdf, [_describe(packet, created)], "\n  "))
    return packet.edit(edits)


def _describe(packet: Packet, lists: dict[str, Sequence[str]]) -> str:
    """Return an rdf:Description with lists of keywords."""
    nodes = packet.rdf.children
    about = nodes[0].attributes.get(f"{RDF} about", "") if nodes else ""
    lines = [f"<rdf:Description rdf:about={quoteattr(about)}"]
    lines += [f"  xmlns:{prefix}={quoteattr(space)}" for prefix, space in _NAMESPACES.items()]
    lines[-1] += ">"
    for name, texts in lists.items():
        items = [f"   <rdf:li>{escape(text)}</rdf:li>" for text in texts]
        tag = _TAGS[name]
        lines += [f" <{tag}>", "  <rdf:Bag>", *items, "  </rdf:Bag>", f" </{tag}>"]
    return "\n  ".join([*lines, "</rdf:Description>"])
