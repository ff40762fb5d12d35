"""The commands of `phototag label`, run in a project with two imports."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.verification.imports import read_dataset
from phototag.verification.label_edits import LabelEdits, read_edits
from tests.conftest import SHIPPED_PARAMS
from tests.verification.test_imports import digest, write_import

EDITS = SHIPPED_PARAMS.parent / "data/labels.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first = [(f"p{number}.jpg", f"{number}", True) for number in range(4)]
    write_import(tmp_path / "data/raw/1.zip", first, {"puppy": {0: 1}, "cat": {1: 1, 2: 1}})
    second = [(f"q{number}.jpg", f"{number}", True) for number in (4, 5)]
    write_import(tmp_path / "data/raw/2.zip", second, {"dog": {0: 1}, "cat": {1: 1}})
    params = SHIPPED_PARAMS.read_text().replace("raw: data/sample", "raw: data/raw")
    (tmp_path / "params.yaml").write_text(params)
    shutil.copy(EDITS, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")  # commands also run in subfolders
    return tmp_path


def run(*arguments: str) -> str:
    """Run `phototag label` and return its output; raise the error of a failed command."""
    result = CliRunner().invoke(typer_app, ["label", *arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def read(project: Path) -> LabelEdits:
    return read_edits(project / "data/labels.yaml")


def make(**keys: Any) -> LabelEdits:
    return LabelEdits.model_validate(keys)


def test_labels_are_listed_with_counts_edits_and_answers(project: Path) -> None:
    with (project / "data/corrections.csv").open("w", newline="") as file:
        header = ["file", "sha256", "label", "answer", "old", "who", "when", "ranking"]
        row = ["p3.jpg", digest("3"), "puppy", "yes", "no", "ann", "2025-01-01", "errors"]
        csv.writer(file).writerows([header, row])
    assert run() == (
        "label  yes  no  unknown\n"
        "cat      3   3        0\n"
        "dog      1   1        4\n"
        "puppy    2   2        2\n"
        "\n"
        "data/labels.yaml contains no edits\n"
    )
    run("merge", "puppy", "dog")
    run("imply", "dog", "animal")
    run("absent", "animal")
    assert run() == (
        "label   yes  no  unknown\n"
        "animal    3   3        0\n"
        "cat       3   3        0\n"
        "dog       3   3        0\n"
        "\n"
        "edits in data/labels.yaml:\n"
        "  rename puppy: dog  (2 photos)\n"
        "  imply dog: animal  (3 photos)\n"
        "  absent animal  (3 photos)\n"
    )


def test_commands_write_edits_and_keep_comments(project: Path) -> None:
    path = project / "data/labels.yaml"
    shipped = path.read_text()
    output = run("rename", "puppy", "whelp")
    assert output == (
        "data/labels.yaml: rename puppy: whelp\n"
        "puppy: 1 yes, 3 no, 2 unknown -> no label\n"
        "whelp: no label -> 1 yes, 3 no, 2 unknown\n"
        "To undo an edit, remove its line. Next: dvc repro\n"
    )
    assert path.read_text() == f"{shipped}\nrename:\n  puppy: whelp\n"
    path.write_text(path.read_text().replace("puppy: whelp", "puppy: whelp  # young dog"))
    run("rename", "whelp", "2024")
    run("imply", "2024", "no")
    run("absent", "no")
    run("drop", "cat")
    assert path.read_text() == (
        f"{shipped}\nrename:\n  puppy: whelp  # young dog\n  whelp: 2024\n"
        "imply:\n  2024: [no]\nabsent: [no]\ndrop: [cat]\n"
    )
    assert read(project) == make(
        rename={"puppy": "whelp", "whelp": "2024"},
        imply={"2024": ["no"]},
        absent=["no"],
        drop=["cat"],
    )
    for arguments in (["absent", "no"], ["imply", "no", "no"], ["merge", "dog", "dog"]):
        assert run(*arguments).startswith("Nothing to change")
    assert path.read_text().count("absent") == shipped.count("absent") + 1


def test_other_edits_and_data_labels_may_keep_old_names(project: Path) -> None:
    params, path = project / "params.yaml", project / "data/labels.yaml"
    params.write_text(params.read_text().replace("labels: []", "labels: [cat, dog, puppy]"))
    run("imply", "puppy", "dog")
    run("imply", "cat", "animal")
    run("absent", "puppy")
    output = run("imply", "puppy", "young")
    assert "run `phototag label absent young`" in output
    assert "young (not in data.labels)" in run()
    run("merge", "puppy", "cat", "dog")
    assert run("rename", "animal", "beast") == (
        "data/labels.yaml: rename animal: beast\n"
        "animal: 5 yes, 0 no, 1 unknown -> no label\n"
        "beast: no label -> 5 yes, 0 no, 1 unknown\n"
        "beast is unknown on 1 photos: if these photos lack it, run `phototag label absent beast`\n"
        "To undo an edit, remove its line. Next: dvc repro\n"
    )
    assert "labels: [cat, dog, puppy]" in params.read_text()
    assert read(project) == make(
        rename={"puppy": "dog", "cat": "dog", "animal": "beast"},
        imply={"dog": ["beast", "young"]},
        absent=["dog"],
    )
    assert run().startswith(
        "label                       yes  no  unknown\n"
        "beast (not in data.labels)    5   0        1\n"
        "dog                           5   1        0\n"
        "young (not in data.labels)    5   0        1\n"
    )
    # Without the renames, the edits concern the old names again.
    text = path.read_text()
    path.write_text(text.replace("  puppy: dog\n", "").replace("  cat: dog\n", ""))
    assert read(project).imply == {"puppy": ("dog", "young"), "cat": ("beast",)}
    run("drop", "puppy")
    run("drop", "cat")
    with pytest.raises(InputError, match="all labels are dropped"):
        run("drop", "dog")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rename pupy dog", r"no label 'pupy' \(did you mean puppy\?\)"),
        ("rename CAT kitten", r"no label 'CAT' \(did you mean cat\?\)"),
        ("rename puppy dog", "label 'dog' exists: .* run `phototag label merge`"),
        ("rename puppy puppy", "label 'puppy' exists"),
        ("rename puppy a:b", "rename: label 'a:b' cannot be a file name"),
        ("rename puppy sha256", "rename: the label 'sha256' is a manifest column's name"),
        ("rename puppy Dog", "'Dog' and the label 'dog' differ only in case"),
        ("rename kitten fox", "no label 'kitten': .* may have renamed"),
        ("rename feline kitten", "no label 'kitten': .* may have renamed"),
        ("rename puppy owl", "no label 'owl': .* may have renamed or dropped it"),
        ("merge puppy bird pet", "no label 'bird'"),
        ("merge puppy cat owl", "no label 'owl': .* may have renamed or dropped it"),
        ("drop owl", "no label 'owl'"),
        ("imply animal dog", "imply: dog -> animal -> dog is a circle"),
        ("imply zebra animal", "no label 'zebra'"),
        ("absent zebra", "no label 'zebra'"),
    ],
)
def test_nonsense_is_refused_and_the_file_is_not_changed(
    project: Path, arguments: str, message: str
) -> None:
    write_import(
        project / "data/raw/3.zip", [("r.jpg", "8", True)], {"kitten": {0: 1}, "owl": {0: 1}}
    )
    path = project / "data/labels.yaml"
    path.write_text("rename: {kitten: feline}\nimply: {dog: [animal]}\ndrop: [owl]\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        run(*arguments.split())
    assert path.read_bytes() == before
    assert [file.name for file in (project / "data").glob("*.tmp.*")] == []


def test_file_is_created_and_a_broken_file_is_not_overwritten(project: Path) -> None:
    path = project / "data/labels.yaml"
    path.unlink()
    run("drop", "cat")
    assert path.read_text() == "drop: [cat]\n"
    path.write_text("drop: [cat]\ndrop: [dog]\n")
    with pytest.raises(InputError, match=r'labels\.yaml:2: .* duplicate key "drop"'):
        run("drop", "puppy")
    assert path.read_text() == "drop: [cat]\ndrop: [dog]\n"


def test_answers_count_once_the_contents_of_photos_are_known(project: Path) -> None:
    """Zips of earlier versions have no hashes; before `resize`, answers cannot be matched."""
    for number in (1, 2):
        write_import(
            project / f"data/raw/{number}.zip", [("p.jpg", f"{number}", True)], {"cat": {}}, False
        )
    (project / "data/corrections.csv").write_text(
        "file,sha256,label,answer,old,who,when,ranking\np.jpg,a,cat,yes,no,ann,2025-01-01,errors\n"
    )
    assert "cat      0   2        0\n" in run()
    # The manifest contains the hashes and the decisions.
    names = read_dataset(project / "data/raw").name_photos()
    rows = zip(names, ["kept", "rejected"], ["a", ""], strict=True)
    with (project / "data/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "decision", "sha256"), *rows])
    assert run() == (
        "label  yes  no  unknown\ncat      1   0        0\n\ndata/labels.yaml contains no edits\n"
    )


@pytest.mark.parametrize("data", [b"", b"file\na\n", b'file,decision,sha256\n"', b"file\xff\n"])
def test_damaged_manifest_is_reported(project: Path, data: bytes) -> None:
    (project / "data/manifest.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"manifest\.csv is not a valid table .*: run `dvc repro`"):
        run()


def test_missing_photos_are_explained(project: Path) -> None:
    shutil.rmtree(project / "data/raw")
    with pytest.raises(InputError, match=r"data\.raw: data/raw is missing: run `dvc pull`"):
        run()
