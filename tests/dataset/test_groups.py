import numpy as np

from phototag.dataset.groups import connect_rows, gather_groups, link_equal, name_groups


def test_equal_values_are_linked_and_empty_ones_are_not() -> None:
    assert link_equal(["b", "", "a", "b", "", "b"]).tolist() == [[0, 3], [0, 5]]
    assert link_equal([]).tolist() == []


def test_linked_rows_merge_and_the_smallest_id_names_the_group() -> None:
    pairs = np.array([[0, 3], [3, 1]])
    ids = ["d" * 20, "b" * 20, "a" * 20, "c" * 20]
    names = name_groups(ids, None, lambda rows: connect_rows(len(rows), pairs))
    assert names == ["b" * 16, "b" * 16, "a" * 16, "b" * 16]


def test_duplicates_and_albums_merge() -> None:
    sha256 = ["a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64]
    groups = gather_groups(sha256, ["", "b", "b", "", ""], ["x", "x", "", "", ""])
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups)) == 3


def test_another_photo_does_not_rename_an_album() -> None:
    before = gather_groups(["c" * 64, "d" * 64], ["", ""], ["trip", "trip"])
    after = gather_groups(["a" * 64, "c" * 64, "d" * 64], [""] * 3, ["trip"] * 3)
    assert set(before) == set(after)


def test_later_photos_join_groups_and_do_not_merge_them() -> None:
    """In the second import, `a` links the album with `e`, and `b` joins the album."""
    sha256 = [letter * 64 for letter in "defabc"]
    imports = ["1", "1", "1", "2", "2", "2"]
    first = gather_groups(sha256[:3], [""] * 3, ["trip", "", ""], imports[:3])
    duplicates = ["", "x", "", "x", "", "y"]
    groups = gather_groups(sha256, duplicates, ["trip", "", "", "trip", "trip", ""], imports)
    assert groups[:3] == first
    assert len(set(first)) == 3
    # The album and `e` are groups of the same import, so the first name decides.
    assert groups[3] == groups[4] == min(first[:2])
    assert groups[5] not in groups[:5]
    assert len(set(gather_groups(sha256, duplicates, ["trip", "", "", "trip", "trip", ""]))) == 3


def test_group_of_two_imports_keeps_its_name() -> None:
    before = gather_groups(["c" * 64, "d" * 64], ["x", "x"], ["", ""], ["1", "1"])
    after = gather_groups(
        ["c" * 64, "d" * 64, "a" * 64], ["x", "x", "x"], [""] * 3, ["1", "1", "2"]
    )
    assert after == [*before, before[0]]
