from typing import Any

import pytest

from phototag.base.keys import apply_overrides, flatten

VALUES: dict[str, Any] = {"lr": 0.1, "model": {"conv": [{"out": 20}], "linear": [8, 4]}}


def test_flatten_keeps_lists() -> None:
    expected = {"lr": 0.1, "model.conv": [{"out": 20}], "model.linear": [8, 4]}
    assert flatten(VALUES) == expected


def test_flatten_with_lists_numbers_their_items() -> None:
    expected = {"lr": 0.1, "model.conv.0.out": 20, "model.linear.0": 8, "model.linear.1": 4}
    assert flatten(VALUES, lists=True) == expected


def test_overrides_change_a_copy() -> None:
    changed = apply_overrides(VALUES, {"lr": 1, "model.linear": []})
    assert changed == {"lr": 1, "model": {"conv": [{"out": 20}], "linear": []}}
    assert VALUES["model"]["linear"] == [8, 4]


@pytest.mark.parametrize("key", ["lrs", "model.size", "lr.x", "data.raw"])
def test_override_of_an_unknown_key_raises(key: str) -> None:
    with pytest.raises(KeyError, match=key):
        apply_overrides(VALUES, {key: 1})
