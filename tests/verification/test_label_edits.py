import codecs
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.verification.label_edits import LabelEdits, make_yaml, parse_edits, read_edits

SHIPPED = Path(__file__).resolve().parents[2] / "data/labels.yaml"
PLACE = "data/labels.yaml"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("---\n# only a comment\n", {}),
        ("rename:\ndrop: []\n", {"drop": ()}),
        ("rename: {puppy: dog}", {"rename": {"puppy": "dog"}}),
        # YAML 1.1 reads these names as booleans, numbers, dates and null.
        (
            "rename: {no: on, 2024: yes}\nabsent: [null, 1.50, ~, 2024-01-01, 0x10]",
            {
                "rename": {"no": "on", "2024": "yes"},
                "absent": ("null", "1.50", "~", "2024-01-01", "0x10"),
            },
        ),
        ("drop: ['  cafe\u0301 ']", {"drop": ("caf\u00e9",)}),  # NFD becomes NFC
        ("imply:\r\n  dog: [animal, pet]\r\n", {"imply": {"dog": ("animal", "pet")}}),
        ("rename: {a: b, b: c}\ndrop: [c]\n", {"rename": {"a": "b", "b": "c"}, "drop": ("c",)}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_are_read_as_text(text: str, expected: dict[str, object], encoding: str) -> None:
    assert parse_edits(text.encode(encoding)) == LabelEdits.model_validate(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rename:\n\tpuppy: dog\n", r":2: not valid YAML \(.*\\t.*\): correct this line"),
        ("rename: {a: b\n", r":2: not valid YAML"),
        ("drop: [a]\n---\ndrop: [b]\n", r":2: not valid YAML \(.*another document"),
        ("rename: *x\n", r":1: not valid YAML \(.*alias 'x'"),
        ("drop: [a]\ndrop: [b]\n", ':2: .* duplicate key "drop"'),
        ("rename:\n  a: b\n  a: c\n", ':3: .* duplicate key "a"'),
        ("rename: {e\u0301: b, \u00e9: c}", ':1: .* duplicate key "\u00e9"'),
        ("<<<<<<< HEAD\ndrop: [a]\n=======\n>>>>>>> x\n", " holds merge conflict markers"),
        ("- a\n", r": expected a mapping with the keys rename, imply, drop, absent, not \['a'\]"),
        ("drop", ": expected a mapping"),
        ("renme: {a: b}", ": renme is unknown"),
        ("rename: [a, b]", ": rename: .* not "),
        ("rename: {a: [b]}", ": rename.a: .* not "),
        ("drop: a", r": drop: expected a list, not 'a': write \[a\]"),
        ("drop: [[a]]", ": drop.0: "),
        ("imply: {dog: animal}", r": imply.dog: expected a list.* write \[animal\]"),
        ("rename: {a: b, b: c, c: a}", ": rename: a -> b -> c -> a is a circle"),
        ("rename: {a: a}", ": rename: a -> a is a circle"),
        ("imply: {a: [x, b], b: [c], c: [a]}", ": imply: a -> b -> c -> a is a circle"),
        ("rename: {a: c}\nimply: {a: [b], b: [c]}", ": imply: c -> b -> c is a circle"),
        ('drop: ["\x01"]', ": not valid YAML"),
        (f"drop: {'[' * 5000}", ": not valid YAML"),
    ],
)
def test_broken_file_is_refused_with_its_key(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_edits(text.encode())
    assert str(caught.value).startswith(PLACE)
    assert "\n" not in str(caught.value)


def test_other_encoding_is_refused() -> None:
    with pytest.raises(InputError, match=r"labels\.yaml:2: not UTF-8 \(byte 0xe9\)"):
        parse_edits(b"# first\nrename: {\xe9: b}")
    assert parse_edits(codecs.BOM_UTF8) == LabelEdits()


def test_missing_and_shipped_file_have_no_edits(tmp_path: Path) -> None:
    assert read_edits(tmp_path / "labels.yaml") == read_edits(SHIPPED) == LabelEdits()
    # The examples in the comments are valid if the comment signs are removed.
    lines = SHIPPED.read_text().partition("#\n")[2].splitlines()
    example = "\n".join(line.removeprefix("# ") for line in lines)
    assert parse_edits(example.encode()) == LabelEdits(
        rename={"puppy": "dog"},
        imply={"dog": ("animal",)},
        drop=("blurry",),
        absent=("animal",),
    )


def test_other_edits_may_contain_old_names() -> None:
    text = "rename: {a: b, b: c, x: y}\nimply: {a: [x, c], b: [z]}\ndrop: [x]\nabsent: [b, q]\n"
    assert parse_edits(text.encode()) == LabelEdits(
        rename={"a": "b", "b": "c", "x": "y"},
        imply={"c": ("y", "z")},  # the merged label c does not imply itself
        drop=("y",),
        absent=("c", "q"),
    )
    assert make_yaml().load("a: no")["a"] == "no"
