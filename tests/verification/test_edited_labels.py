from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import Answer
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import LabelledPhotos, apply_edits
from phototag.verification.imports import read_dataset
from phototag.verification.label_edits import LabelEdits
from phototag.verification.labels import UNLISTED
from tests.verification.test_imports import write_import

PHOTOS = [Photo("kept", "", sha256=sha256) for sha256 in "abcd"]
DAY = iter(range(1, 10**6))
Columns = Mapping[str, list[int]]


def make_edits(**keys: Any) -> LabelEdits:
    return LabelEdits.model_validate(keys)


def make_answer(label: str, answer: str, sha256: str = "a", ranking: str = "errors") -> Answer:
    """Return an answer that is later than all answers returned before."""
    when = f"2025-01-01T00:00:00.{next(DAY):06}+00:00"
    return Answer(f"{sha256}.jpg", sha256, label, answer, "no", "ann", when, ranking)


def edit(
    edits: LabelEdits, columns: Columns, *answers: Answer, wanted: tuple[str, ...] = ()
) -> LabelledPhotos:
    edited = EditedLabels(edits, list(columns), wanted).check()
    targets = {label: np.array(column, np.int8) for label, column in columns.items()}
    numbered = dict(enumerate(answers, start=2))
    return apply_edits(edited, targets, PHOTOS, numbered)


def as_lists(result: LabelledPhotos) -> dict[str, list[int]]:
    return {label: column.tolist() for label, column in result.targets.items()}


def test_merged_label_is_positive_if_any_is_and_unknown_if_any_is_unknown() -> None:
    columns = {"cat": [1, 0, 0, UNKNOWN], "dog": [UNKNOWN, 0, UNKNOWN, 0], "owl": [0, 1, 1, 0]}
    result = edit(make_edits(rename={"cat": "pet", "dog": "pet"}), columns)
    assert as_lists(result) == {"owl": [0, 1, 1, 0], "pet": [1, 0, UNKNOWN, UNKNOWN]}
    assert result.counts == {"rename cat: pet": 1, "rename dog: pet": 0}
    chain = edit(make_edits(rename={"cat": "puss", "puss": "pet", "dog": "pet"}), columns)
    assert as_lists(chain) == as_lists(result)
    onto_existing = edit(make_edits(rename={"cat": "dog"}), columns)
    assert as_lists(onto_existing)["dog"] == as_lists(result)["pet"]


def test_label_with_the_name_of_a_manifest_column_can_be_renamed() -> None:
    columns = {"file": [1, 0, 0, 0], "dog": [0, 1, 0, 0]}
    assert as_lists(edit(make_edits(rename={"file": "document"}), columns)) == {
        "document": [1, 0, 0, 0],
        "dog": [0, 1, 0, 0],
    }


def test_edits_equal_a_computation_with_sets_of_labels() -> None:
    """Each photo's labels, as Python sets, are renamed and closed under the implications."""
    rng = np.random.default_rng(0)
    names = [f"l{number}" for number in range(8)]
    for _ in range(200):
        order = rng.permutation(12)
        rename = {
            name: f"l{rng.choice(order[place + 1 :])}"
            for name in names
            if (place := int(np.flatnonzero(order == int(name[1:]))[0])) < 11 and rng.random() < 0.4
        }
        finals = sorted({f"l{number}" for number in range(12)} - rename.keys())
        found = {name: name for name in names}
        for name in names:
            while found[name] in rename:
                found[name] = rename[found[name]]
        present = sorted(set(found.values()))
        imply = {
            child: tuple(rng.choice(finals[place + 1 :], size=1).tolist())
            for place, child in enumerate(finals[:-1])
            if child in present and rng.random() < 0.4
        }
        carried = rng.random((4, 8)) < 0.3
        columns = {name: carried[:, n].astype(int).tolist() for n, name in enumerate(names)}
        new = {parent for parents in imply.values() for parent in parents} - {*present}
        result = edit(make_edits(rename=rename, imply=imply, absent=sorted(new)), columns)
        for row in range(4):
            labels = {found[name] for n, name in enumerate(names) if carried[row, n]}
            for _ in imply:
                labels |= {parent for each in labels for parent in imply.get(each, ())}
            assert {label for label, column in result.targets.items() if column[row]} == labels
        assert set(result.targets) == {*present} | new


def test_answers_about_the_old_name_count_for_the_new_one_in_order_of_time() -> None:
    edits = make_edits(rename={"puppy": "pup", "pup": "dog"})
    columns = {"puppy": [0, 1, 1, 0]}
    first, second, third = (
        make_answer("puppy", "yes"),
        make_answer("dog", "unsure"),
        make_answer("pup", "yes"),
    )
    assert as_lists(edit(edits, columns, first)) == {"dog": [1, 1, 1, 0]}
    assert as_lists(edit(edits, columns, first, second)) == {"dog": [UNKNOWN, 1, 1, 0]}
    result = edit(edits, columns, first, second, third)
    assert as_lists(result) == {"dog": [1, 1, 1, 0]}
    assert [photo.reason for photo in result.photos] == ["corrected: dog yes", "", "", ""]
    assert result.problems == []
    undone = edit(edits, columns, first, make_answer("dog", "no", ranking="undo"))
    assert as_lists(undone) == {"dog": [0, 1, 1, 0]}


def test_answer_about_a_merged_label_acts_before_the_merge() -> None:
    edits = make_edits(rename={"cat": "pet", "dog": "pet"})
    columns = {"cat": [1, 1, 0, 0], "dog": [0, 1, 0, 0]}
    answers = [make_answer("cat", "no", "a"), make_answer("cat", "no", "b")]
    answers += [make_answer("dog", "yes", "c"), make_answer("dog", "unsure", "d")]
    result = edit(edits, columns, *answers)
    assert as_lists(result) == {"pet": [0, 1, 1, UNKNOWN]}
    later = make_answer("pet", "no", "b")
    assert as_lists(edit(edits, columns, later, *answers)) == {"pet": [0, 0, 1, UNKNOWN]}
    # After another rename, answers about the merged label still count for the whole label.
    again = make_edits(rename={"cat": "pet", "dog": "pet", "pet": "animal"})
    assert as_lists(edit(again, columns, later, *answers)) == {"animal": [0, 0, 1, UNKNOWN]}


def test_answers_about_dropped_labels_are_noted() -> None:
    edits = make_edits(rename={"dim": "dark"}, drop=["dark", "cat"])
    columns = {"dim": [1, 1, 0, 0], "cat": [1, 0, 0, 0], "dog": [0, 0, 1, 0]}
    answers = [make_answer("cat", "no"), make_answer("dim", "no"), make_answer("dim", "yes")]
    answers += [make_answer("dog", "yes"), make_answer("owl", "yes")]
    result = edit(edits, columns, *answers)
    assert as_lists(result) == {"dog": [1, 0, 1, 0]}
    assert [(problem.place, problem.text, problem.action) for problem in result.problems] == [
        (f"data/corrections.csv:{line}", f"answer not applied: a.jpg, {what}", "noted")
        for line, what in (
            (2, "cat no: the label is not learned"),
            (4, "dark yes: the label is not learned"),
            (6, "owl yes: the label is not learned"),
        )
    ]
    assert result.counts == {"rename dim: dark": 2, "drop dark": 2, "drop cat": 1}


def test_answer_wins_against_an_implication() -> None:
    edits = make_edits(imply={"poodle": ["dog"], "dog": ["animal"]})
    columns = {"poodle": [1, 1, 0, 0], "dog": [0, 0, 1, 0], "animal": [0, 0, 0, 0]}
    plain = edit(edits, columns)
    assert as_lists(plain) == {
        "animal": [1, 1, 1, 0],
        "dog": [1, 1, 1, 0],
        "poodle": [1, 1, 0, 0],
    }
    assert plain.counts == {"imply poodle: dog": 2, "imply dog: animal": 3}
    answers = [make_answer("dog", "no"), make_answer("animal", "unsure", "c")]
    answers += [make_answer("poodle", "no", "b")]  # corrected children imply nothing
    result = edit(edits, columns, *answers)
    assert as_lists(result) == {
        "animal": [0, 0, UNKNOWN, 0],
        "dog": [0, 0, 1, 0],
        "poodle": [1, 0, 0, 0],
    }
    assert result.problems == []


def test_dropped_label_still_implies_others() -> None:
    edits = make_edits(imply={"poodle": ["dog"]}, drop=["poodle"])
    result = edit(edits, {"poodle": [1, 0, 0, 0], "dog": [0, 1, 0, 0]}, wanted=("dog",))
    assert as_lists(result) == {"dog": [1, 1, 0, 0]}
    assert result.counts == {"imply poodle: dog": 1, "drop poodle": 1}


def test_label_that_is_only_implied_is_unknown_elsewhere_unless_it_is_absent() -> None:
    columns = {"cat": [1, 0, UNKNOWN, 0]}
    edits = {"imply": {"cat": ["animal"]}}
    assert as_lists(edit(make_edits(**edits), columns))["animal"] == [1, *[UNKNOWN] * 3]
    result = edit(make_edits(**edits, absent=["animal"]), columns)
    # A photo that may show a cat may show an animal.
    assert as_lists(result)["animal"] == [1, 0, UNKNOWN, 0]
    assert result.counts == {"imply cat: animal": 1, "absent animal": 2}


def test_absent_concerns_only_photos_of_imports_without_the_label() -> None:
    columns = {"cat": [1, 0, 0, 0], "sun": [1, UNKNOWN, UNLISTED, UNLISTED]}
    assert as_lists(edit(make_edits(), columns))["sun"] == [1, *[UNKNOWN] * 3]
    result = edit(make_edits(absent=["sun"]), columns, make_answer("sun", "yes", "d"))
    assert as_lists(result)["sun"] == [1, UNKNOWN, 0, 1]
    assert result.counts == {"absent sun": 1}


def test_labels_are_merged_import_by_import_and_later_imports_overrule(tmp_path: Path) -> None:
    """Import 1 lists puppy, import 2 dog (and p1 to p3 again), import 3 neither."""
    first = [(f"p{number}.jpg", f"{number}", True) for number in range(1, 6)]
    write_import(tmp_path / "1.zip", first, {"puppy": {0: 1, 1: 1, 2: 1, 3: 1}, "sea": {}})
    second = [(f"q{number}.jpg", f"{number}", number > 3) for number in (1, 2, 3, 6, 7)]
    write_import(tmp_path / "2.zip", second, {"dog": {0: 1, 2: UNKNOWN, 3: 1}})
    write_import(tmp_path / "3.zip", [("r.jpg", "8", True)], {"cat": {0: 1}})
    dataset = read_dataset(tmp_path)
    edits = make_edits(rename={"puppy": "dog"}, absent=["cat"])
    edited = EditedLabels(edits, dataset.list_labels()).check()
    sha256 = [entry.cells["sha256"] for entry in dataset.stored]
    targets = dataset.merge_targets(dataset.read_labels((), edited.fill).targets, sha256)
    photos = [Photo("kept", "", sha256=digest) for digest in sha256]
    result = apply_edits(edited, targets, photos, {})
    assert dataset.name_photos() == [
        *("p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg", "p5.jpg", "q6.jpg", "q7.jpg", "r.jpg")
    ]
    assert as_lists(result) == {
        "cat": [0, 0, 0, 0, 0, 0, 0, 1],
        # Import 2 lacks p2 and does not know p3.
        "dog": [1, 0, 1, 1, 0, 1, 0, UNKNOWN],
        "sea": [0, 0, 0, 0, 0, UNKNOWN, UNKNOWN, UNKNOWN],
    }


def test_rejected_photos_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PHOTOS", [replace(PHOTOS[0], decision="rejected"), *PHOTOS[1:]])
    result = edit(make_edits(rename={"cat": "puss"}), {"cat": [1, 1, 0, 0]})
    assert result.counts == {"rename cat: puss": 1}


def test_wanted_labels_may_have_old_names_and_need_the_files_of_their_sources() -> None:
    edits = make_edits(rename={"puppy": "dog"}, imply={"dog": ["animal"], "cat": ["animal"]})
    assert EditedLabels(edits, ["puppy", "owl"], ("puppy", "dog")).learned == ["dog"]
    edited = EditedLabels(edits, ["cat", "dog", "owl", "puppy"], ("animal",)).check()
    assert edited.needed == ["cat", "dog", "puppy"]
    read = {"cat": [1, 0, 0, 0], "dog": [0, 0, 0, 0], "puppy": [0, 1, 0, 0]}
    assert as_lists(edit(edits, read, wanted=("animal",))) == {"animal": [1, 1, UNKNOWN, UNKNOWN]}
    # Without edits, data.labels is read as before.
    assert EditedLabels(LabelEdits(), ["cat", "dog"], ("dog",)).needed == ["dog"]
    assert as_lists(edit(edits, {"owl": [0, 0, 1, 0]} | read, wanted=("owl",))) == {
        "owl": [0, 0, 1, 0]
    }


@pytest.mark.parametrize(
    ("keys", "wanted", "message"),
    [
        (
            {"rename": {"pupy": "dog"}},
            (),
            r"labels.yaml: rename: no label file has the name 'pupy' \(did you mean puppy\?\)",
        ),
        ({"rename": {"DOG": "hound"}}, (), r"rename: .* 'DOG' \(did you mean dog\?\)"),
        ({"drop": ["zebra"]}, (), "drop: no label file has the name 'zebra': correct the name"),
        ({"absent": ["zebra"]}, (), "absent: no label file has the name 'zebra'"),
        ({"imply": {"zebra": ["animal"]}}, (), "imply: no label file has the name 'zebra'"),
        ({"rename": {"cat": "a/b"}}, (), "rename: label 'a/b' cannot be a file name"),
        ({"rename": {"cat": ""}}, (), "rename: label '' cannot be a file name"),
        ({"rename": {"cat": "sha256"}}, (), "rename: the label 'sha256' is a manifest column's"),
        ({"imply": {"cat": ["file"]}}, (), "imply: the label 'file' is a manifest column's name"),
        ({"rename": {"cat": "Dog"}}, (), "rename: 'Dog' and the label 'dog' differ only in case"),
        ({"imply": {"cat": ["DOG"]}}, (), "imply: 'DOG' and the label 'dog' differ only in case"),
        ({"drop": ["cat", "dog", "puppy"]}, (), "drop: all labels are dropped"),
        ({"rename": {"cat": "puss"}, "drop": ["puss"]}, ("cat",), "drop: all labels are dropped"),
        ({"drop": ["cat"]}, ("dgo",), r"no label 'dgo' \(did you mean dog\?\)"),
    ],
)
def test_edit_of_labels_that_do_not_exist_is_refused(
    keys: dict[str, Any], wanted: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        EditedLabels(make_edits(**keys), ["cat", "dog", "puppy"], wanted).check()


def test_merged_labels_are_not_listed_as_renamed() -> None:
    rename = {"a": "b", "b": "c", "x": "z", "y": "z", "puppy": "dog", "u": "v", "v": "w", "s": "w"}
    given = ["a", "x", "y", "puppy", "dog", "u", "s"]
    assert EditedLabels(make_edits(rename=rename), given).check().renamed == {"a": "c", "b": "c"}


def test_case_of_a_label_may_be_changed() -> None:
    edits = make_edits(rename={"cat": "Cat"})
    assert EditedLabels(edits, ["cat", "dog"]).check().labels == ["Cat", "dog"]
