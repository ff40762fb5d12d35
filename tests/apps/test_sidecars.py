import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from phototag.apps import sidecar_text
from phototag.apps.formats import Row
from phototag.apps.sidecar_text import NEW
from phototag.apps.sidecars import SidecarWriter
from phototag.base.errors import InputError
from phototag.importers.keywords import Keywords
from phototag.importers.xmp import parse_packet
from tests.apps.test_predictions import COLORS, options, run
from tests.importers.sidecars import BROKEN, DARKTABLE, DIGIKAM, PROGRAMS, RDF
from tests.models import make_model


def set_keywords(data: bytes | None, labels: list[str], other: Keywords | None = None) -> bytes:
    """Call the function of this name; return b"" instead of None."""
    return sidecar_text.set_keywords(data, labels, other) or b""


SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "own": "urn:phototag:1.0/",
}
ROWS: list[Row] = [{"labels": ["red"], "scores": {}, "error": None}]
FLAT, PATHS, TAGS, OWN = "dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList", "own:keywords"


def read_list(data: bytes, name: str) -> list[str]:
    """Return the items of a list, as another XML library reads them; there is at most one list."""
    root = ElementTree.fromstring(data.removesuffix(b"\0\0"))
    lists = root.findall(f".//{name}", SPACES)
    assert len(lists) <= 1
    return [item.text or "" for each in lists for item in each.findall("*/rdf:li", SPACES)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_sidecar_of_a_program_keeps_all_it_has(name: str) -> None:
    before = PROGRAMS[name]
    after = set_keywords(before, ["red", "Cat", "AT&T"])
    assert read_list(after, OWN) == ["red", "AT&T"]  # the user entered `cat`
    for each, start in ((FLAT, ""), (PATHS, "phototag|"), (TAGS, "phototag/")):
        old = read_list(before, each)
        new = [f"{start}red", f"{start}AT&T"] if old or each == FLAT else []
        assert read_list(after, each) == old + new
    assert set_keywords(after, ["red", "Cat", "AT&T"]) == after
    nodes = ElementTree.fromstring(after.removesuffix(b"\0\0")).findall(
        ".//rdf:Description", SPACES
    )
    assert len({node.get(f"{{{SPACES['rdf']}}}about") for node in nodes}) == 1
    # The text is the old one with insertions.
    rest = iter(parse_packet(after).text)
    assert all(byte in rest for byte in parse_packet(before).text)
    assert read_list(set_keywords(after, ["blue"]), OWN) == ["blue"]
    assert set_keywords(set_keywords(after, ["blue"]), []) == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_predicted_keywords_are_not_read_as_labels(name: str) -> None:
    found = Keywords()
    found.add(parse_packet(set_keywords(PROGRAMS[name], ["red"])))
    assert found.human == {"Zoo", "animals", "cat"}


def test_keywords_elsewhere_are_the_users_unless_phototag_wrote_them() -> None:
    made = set_keywords(None, ["red", "blue"])
    other = Keywords(flat={"\u00e9t\u00e9", "Red", "red"})
    assert set_keywords(made, ["red", "blue"], other) == set_keywords(made, ["blue"])
    assert read_list(set_keywords(None, ["e\u0301te\u0301", "blue"], other), OWN) == ["blue"]
    assert other == Keywords(flat={"\u00e9t\u00e9", "Red", "red"})


def test_values_that_a_program_adds_to_the_own_node_are_kept() -> None:
    made = set_keywords(None, ["red"])
    rated = made.replace(b'rdf:about=""', b'rdf:about="" xmlns:n="urn:n/" n:note="a > b, c/"')
    left = set_keywords(rated, [])
    assert b'n:note="a > b, c/"' in left
    assert b"red" not in left


def test_new_sidecar_has_marked_keywords_and_ends_as_nothing() -> None:
    made = set_keywords(None, ["red", "a|b"])
    assert read_list(made, FLAT) == read_list(made, OWN) == ["red", "a|b"]
    assert read_list(made, PATHS) == ["phototag|red"]
    assert made.startswith(NEW.partition(b"\n </rdf:RDF>")[0])
    assert set_keywords(made, ["a|b", "red"]) == made
    found = Keywords()
    found.add(parse_packet(made))
    assert found.human == set()
    assert set_keywords(None, []) == set_keywords(made, []) == b""


@pytest.mark.parametrize(
    "inside",
    [
        "<rdf:RDF {rdf}/>",
        "<rdf:RDF {rdf}></rdf:RDF>",
        "<rdf:RDF {rdf}><rdf:Description rdf:about=''/></rdf:RDF>",
        "<rdf:RDF {rdf}><rdf:Description {dc}><dc:subject><rdf:Bag xml:lang='>' /></dc:subject>"
        "</rdf:Description></rdf:RDF>",
        "<rdf:RDF {rdf}><rdf:Description {dc}><dc:subject><rdf:Bag>\n</rdf:Bag></dc:subject>"
        "</rdf:Description></rdf:RDF>",
    ],
)
def test_empty_lists_are_filled_and_emptied(inside: str) -> None:
    before = inside.format(rdf=RDF, dc=f'xmlns:dc="{SPACES["dc"]}"').encode()
    after = set_keywords(before, ["red", "blue"])
    assert read_list(after, FLAT) == ["red", "blue"]
    assert read_list(set_keywords(after, ["red"]), FLAT) == ["red"]
    left = set_keywords(after, [])
    assert set_keywords(left, []) == left
    assert not re.search(b"subject|phototag|red", left)
    assert left.count(b"about") == before.count(b"about")


def rewrite(data: bytes) -> bytes:
    """Return a sidecar as a program writes it that knows all lists: one node, other spaces."""
    root = ElementTree.fromstring(data.removesuffix(b"\0\0"))
    (rdf,) = root.iter(f"{{{SPACES['rdf']}}}RDF")
    first, *others = list(rdf)
    for node in others:
        first.extend(node)
        rdf.remove(node)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root)


def test_own_keywords_are_found_after_a_program_rewrote_the_sidecar() -> None:
    for before in (DARKTABLE.encode(), DIGIKAM.encode()):
        saved = rewrite(set_keywords(before, ["red", "blue"]))
        assert set_keywords(saved, ["red", "blue"]) == saved
        undone = set_keywords(saved, [])
        assert rewrite(undone) == rewrite(before)


def test_keyword_that_the_user_removed_is_not_written_again() -> None:
    made = set_keywords(DARKTABLE.encode(), ["red", "blue"])
    head, own, record = made.partition(b"<phototag:keywords>")
    for text in (b"red", b"phototag|red"):
        head = head.replace(b"<rdf:li>%s</rdf:li>" % text, b"")
    made = head + own + record
    assert read_list(made, PATHS)[-1] == "phototag|blue"
    for labels in (["red", "blue"], ["red"]):
        again = set_keywords(made, labels)
        assert "red" not in read_list(again, FLAT)
        assert read_list(again, OWN) == labels
        assert set_keywords(again, labels) == again
        assert set_keywords(again, []) == DARKTABLE.encode()


def test_keyword_that_the_user_moved_is_the_users() -> None:
    moved = set_keywords(None, ["red", "blue"]).replace(b"phototag|red", b"colours|red")
    after = set_keywords(moved, ["red", "blue"])
    assert read_list(after, OWN) == ["blue"]
    assert set(read_list(set_keywords(after, []), FLAT)) == {"red"}
    assert read_list(set_keywords(after, []), PATHS) == ["colours|red"]


def test_keywords_without_parents_are_not_hidden_by_a_new_list() -> None:
    before = PROGRAMS["apple"]
    after = set_keywords(before, ["red"])
    assert read_list(after, PATHS) == []
    # The user's program adds a keyword to the list that phototag created.
    first = set_keywords(None, ["red"])
    tree = first.replace(b"<rdf:li>red</rdf:li>\n    </rdf:Bag>\n   </dc", (
        b"<rdf:li>red</rdf:li>\n     <rdf:li>Zoo</rdf:li>\n    </rdf:Bag>\n   </dc"
    ))  # fmt: skip
    assert tree != first
    left = set_keywords(tree, [])
    assert read_list(left, FLAT) == ["Zoo"]
    assert b"<phototag:" not in left
    assert read_list(set_keywords(tree, ["blue"]), FLAT) == ["Zoo", "blue"]


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("<dc:subject>cat</dc:subject>", "dc:subject is not a list"),
        *((None, message) for _, message in BROKEN.values()),
    ],
)
def test_broken_sidecar_is_refused(subject: str | None, message: str) -> None:
    data = next((data for data, text in BROKEN.values() if text == message), b"")
    if subject:
        space = f'xmlns:dc="{SPACES["dc"]}"'
        data = f"<rdf:RDF {RDF}><rdf:Description {space}>{subject}</rdf:Description></rdf:RDF>"\
            .encode()  # fmt: skip
    if data:
        with pytest.raises(InputError, match=message):
            set_keywords(data, ["red"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with photos in the colours that the model knows, and one that is not a photo."""
    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    for name, color in (("a.jpg", "blue"), ("b.png", "none"), ("old/c.jpg", "red")):
        Image.new("RGB", (30, 20), COLORS[color]).save(folder / name)
    (folder / "d.jpg").write_text("no photo")
    return folder


@pytest.fixture
def predict(photos: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    model = options(make_model(tmp_path / "model"))

    def call(*more: str, source: Path = photos) -> tuple[int, str, str]:
        return run(str(source), "-f", "xmp", *([] if "--undo" in more else model), *more)

    return call


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in files
    }


def list_sidecars(folder: Path) -> list[str]:
    return [name for name in snapshot(folder) if name.lower().endswith(".xmp")]


def test_command_writes_repeats_and_removes_sidecars(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    (photos / "b.png.xmp").write_bytes(set_keywords(DARKTABLE.encode(), ["green"]))
    before = snapshot(photos)
    code, out, problems = predict()
    assert (code, out) == (0, "sidecars: 2 created, 1 changed, 0 deleted, 0 unchanged, 0 refused\n")
    assert "d.jpg: not an image" in problems
    assert list_sidecars(photos) == ["a.jpg.xmp", "b.png.xmp", "old/c.jpg.xmp"]
    assert read_list((photos / "a.jpg.xmp").read_bytes(), PATHS) == ["phototag|blue"]
    assert (photos / "b.png.xmp").read_bytes() == DARKTABLE.encode()  # no label is predicted now
    written = snapshot(photos)
    assert "3 unchanged" in predict()[1]
    assert snapshot(photos) == written
    code, out, _ = predict("--undo")
    assert (code, out) == (0, "sidecars: 0 created, 0 changed, 2 deleted, 1 unchanged, 0 refused\n")
    assert snapshot(photos) == {
        name: written[name] if name == "b.png.xmp" else file for name, file in before.items()
    }


def test_existing_sidecars_are_used_and_the_option_names_new_ones(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    (photos / "b.xmp").write_bytes(set_keywords(DARKTABLE.encode(), ["green"]))
    (photos / "a.aae").write_bytes(b"edits")
    assert predict("--sidecars", "a.xmp", source=photos / "a.jpg")[0] == 0
    assert list_sidecars(photos) == ["a.xmp", "b.xmp"]
    out = predict()[1]
    assert out == "sidecars: 1 created, 1 changed, 0 deleted, 1 unchanged, 0 refused\n"
    assert list_sidecars(photos) == ["a.xmp", "b.xmp", "old/c.jpg.xmp"]
    assert (photos / "b.xmp").read_bytes() == DARKTABLE.encode()
    predict("--undo", source=photos / "a.jpg")
    assert list_sidecars(photos) == ["b.xmp", "old/c.jpg.xmp"]


def test_sidecar_that_may_be_of_a_raw_file_is_not_changed(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    (photos / "a.cr2").write_bytes(b"raw")
    (photos / "a.XMP").write_bytes(DARKTABLE.encode().replace(b"Zoo", b"Blue"))
    before = snapshot(photos)
    assert "0 created" in predict(source=photos / "a.jpg")[1]  # it has the user's keyword `Blue`
    assert snapshot(photos) == before
    (photos / "a.XMP").write_bytes(DARKTABLE.encode())
    out = predict("--sidecars", "a.xmp", source=photos / "a.jpg")[1]
    assert out == "sidecars: 1 created, 0 changed, 0 deleted, 0 unchanged, 0 refused\n"
    assert list_sidecars(photos) == ["a.XMP", "a.jpg.xmp"]
    assert (photos / "a.XMP").read_bytes() == DARKTABLE.encode()


def test_sidecar_of_another_photo_is_not_changed(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    (photos / "a.jpg").rename(photos / "c.jpg")
    for name in ("c.jpg.jpg", "c"):
        Image.new("RGB", (30, 20), COLORS["red"]).save(photos / name, "JPEG")
    assert predict()[0] == 0
    assert list_sidecars(photos) == ["c.jpg.jpg.xmp", "c.jpg.xmp", "c.xmp", "old/c.jpg.xmp"]
    assert read_list((photos / "c.jpg.xmp").read_bytes(), OWN) == ["blue"]
    before = snapshot(photos)
    assert predict()[0] == 0
    assert snapshot(photos) == before


def test_label_that_the_photo_has_is_not_written(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    image = Image.new("RGB", (30, 20), COLORS["blue"])
    image.save(photos / "a.jpg", xmp=DARKTABLE.replace("Zoo", "blue").encode())
    assert "0 created" in predict(source=photos / "a.jpg")[1]
    assert list_sidecars(photos) == []


def spoil(path: Path, how: str, elsewhere: Path) -> None:
    """Make a sidecar that may not be changed."""
    path.write_bytes(DARKTABLE.encode())
    if how == "write-protected":
        path.chmod(0o444)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "link":
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    elif how == "broken link":
        path.unlink()
        path.symlink_to(elsewhere)
    else:
        path.write_bytes(BROKEN[how][0])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("write-protected", "write-protected"),
        ("folder", "unreadable|folder"),
        ("link", "a link, which is not replaced"),
        ("broken link", "No such file"),
        ("empty", "not XML"),
        ("cut", "not XML"),
    ],
)
def test_sidecar_that_cannot_be_changed_is_reported_and_the_others_are_written(
    photos: Path,
    predict: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    how: str,
    message: str,
) -> None:
    spoil(photos / "a.jpg.xmp", how, tmp_path / "elsewhere.xmp")
    before = snapshot(tmp_path)
    code, out, problems = predict()
    assert code != 0
    assert out == "sidecars: 1 created, 0 changed, 0 deleted, 0 unchanged, 1 refused\n"
    (line,) = [line for line in problems.splitlines() if "a.jpg.xmp" in line]
    assert any(part in line for part in message.split("|"))
    assert line.endswith("; nothing was changed")
    assert "sidecars not written: 1" in problems
    after = snapshot(tmp_path)
    del after["photos/old/c.jpg.xmp"]
    assert after == before


@pytest.mark.parametrize("saved", [DIGIKAM.encode(), None])
@pytest.mark.parametrize("before", [True, False])
def test_sidecar_saved_or_removed_meanwhile_is_read_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch, saved: bytes | None, before: bool
) -> None:
    path, original = photos / "a.jpg.xmp", shutil.copymode
    path.write_bytes(DARKTABLE.encode())

    def save(*files: Path) -> None:
        monkeypatch.setattr(shutil, "copymode", original)
        if not before:
            original(*files)
        path.unlink()
        if saved:
            path.write_bytes(saved)
        if before:
            original(*files)

    monkeypatch.setattr(shutil, "copymode", save)
    writer = SidecarWriter(print)
    writer.write([str(photos / "a.jpg")], ROWS)
    assert writer.counts == {"changed" if saved else "created": 1}
    assert path.read_bytes() == set_keywords(saved, ["red"])
    assert {file.name for file in photos.iterdir()} == {"a.jpg", path.name, "b.png", "d.jpg", "old"}


def test_read_only_folder_is_reported(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, *_: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    writer = SidecarWriter(print)
    writer.write([str(photos / "a.jpg")], ROWS)
    writer.write([str(photos / ("x" * 248 + ".jpg"))], ROWS)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{photos}/a.jpg.xmp could not be written (Permission denied)")
    assert second.endswith(".jpg.xmp: File name too long; nothing was changed")
    assert writer.counts == {"refused": 2}
    with pytest.raises(InputError, match="gone: No such file or directory"):
        writer.write([str(photos / "gone/a.jpg")], ROWS)


def test_permissions_are_kept(photos: Path) -> None:
    path = photos / "a.jpg.xmp"
    path.write_bytes(DARKTABLE.encode())
    path.chmod(0o640)
    SidecarWriter(print).write([str(photos / "a.jpg")], ROWS)
    assert b"phototag|red" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["write_bytes", "replace"])
def test_killed_run_leaves_the_old_sidecar(photos: Path, name: str) -> None:
    path = photos / "a.jpg.xmp"
    path.write_bytes(DARKTABLE.encode())
    child = os.fork()
    if child == 0:  # it ends like a process that is killed before this call
        try:
            setattr(Path, name, lambda *_: os._exit(9))
            SidecarWriter(print).write([str(photos / "a.jpg")], ROWS)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_bytes() == DARKTABLE.encode()
    unfinished = [file for file in photos.iterdir() if ".tmp." in file.name]
    assert len(unfinished) == (name == "replace")
    SidecarWriter(print).write([str(photos / "a.jpg")], ROWS)
    assert path.read_bytes() == set_keywords(DARKTABLE.encode(), ["red"])
    assert not [file for file in photos.iterdir() if ".tmp." in file.name]


def test_options_of_sidecars_are_checked(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    for more in (("-o", str(photos / "out")), ("--new",), ("--resume",)):
        assert "omit --output, --new and --resume" in predict(*more)[2]
    for option in ("--undo", "--sidecars=a.xmp"):
        assert "add -f xmp" in run(str(photos), option)[2]
    assert snapshot(photos).keys() == {"a.jpg", "b.png", "d.jpg", "old/c.jpg"}


@pytest.mark.parametrize("text", ["<cut", DIGIKAM])
def test_undo_skips_sidecars_in_which_phototag_wrote_nothing(
    photos: Path, predict: Callable[..., tuple[int, str, str]], text: str
) -> None:
    for name in ("other.xmp", "b.png.xmp"):
        (photos / name).write_bytes(text.encode("utf-16"))
    (photos / "a.jpg.xmp").write_bytes(set_keywords(None, ["blue"]) or b"")
    code, out, problems = predict("--undo")
    assert (code, problems) == (0, "")
    assert out == "sidecars: 0 created, 0 changed, 1 deleted, 2 unchanged, 0 refused\n"
    # In a damaged sidecar with keywords of phototag, these keywords stay, which is an error.
    (photos / "other.xmp").write_bytes((set_keywords(None, ["blue"]) or b"")[:-9])
    assert predict("--undo")[0] == 1


def test_undo_finds_sidecars_whose_photos_are_gone(
    photos: Path, predict: Callable[..., tuple[int, str, str]]
) -> None:
    predict()
    assert "1 deleted" in predict("--undo", source=photos / "a.jpg.xmp")[1]
    predict()
    (photos / "a.jpg").unlink()
    (photos / "old/c.jpg").rename(photos / "old/d.jpg")
    (photos / ".versions").mkdir()
    for name in (".versions/a.jpg.xmp", ".a.jpg.99999999.tmp.xmp"):
        (photos / name).write_bytes((photos / "a.jpg.xmp").read_bytes())
    assert "2 deleted" in predict("--undo")[1]
    assert list_sidecars(photos) == [".versions/a.jpg.xmp"]
    assert "gone.jpg: no such file or folder" in predict("--undo", source=photos / "gone.jpg")[2]
