import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.base.params import ParamGroup
from phototag.evaluation.params import EvaluateParams, Target
from phototag.network.params import ConvParams
from phototag.schema.params import RENAMED, Params, read_all_params, validate_all
from phototag.synthetic.params import RawParams

Values = dict[str, Any]
Change = Callable[[Values], Any]


def read_values(path: Path, values: Values) -> Params:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return read_all_params(path)


def test_shipped_file_is_valid(shipped_params: Params) -> None:
    assert shipped_params.split.val + shipped_params.split.test < 1
    assert [block.out for block in shipped_params.model.conv] == [20, 40, 20, 50, 100]
    assert shipped_params.model.linear == (2048, 512)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(learning_rate=0.1), "learning_rate is unknown"),
        (lambda values: values["split"].update(tets=0.1), "split.tets is unknown"),
        (lambda values: values["model"]["conv"][1].update(pad=1), "model.conv.1.pad is unknown"),
        (lambda values: values.pop("seed"), "seed is missing"),
        (lambda values: values["model"]["conv"][2].pop("out"), "model.conv.2.out is missing"),
    ],
)
def test_unknown_or_missing_key_is_named(
    change: Change, message: str, params_values: Values, tmp_path: Path
) -> None:
    change(params_values)
    with pytest.raises(InputError, match=re.escape(f": {message}")):
        read_values(tmp_path / "params.yaml", params_values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", 0),
        ("lr", "fast"),
        ("lr", "nan"),
        ("lr", True),
        ("weight_decay", -1e-9),
        ("seed", -1),
        ("batch_size", 64.0),
        ("batch_size", "64"),
        ("optimizer", "rmsprop"),
        ("data.raw", ""),
        ("split.val", 0),
        ("split.val", 1),
        ("model.conv", []),
        ("model.conv.0.kernel", "3"),
        ("model.linear.1", True),
    ],
)
def test_invalid_value_is_reported_with_its_dotted_key(
    key: str, value: object, params_values: Values, tmp_path: Path
) -> None:
    *groups, last = key.split(".")
    group: Any = params_values
    for part in groups:
        group = group[int(part) if part.isdigit() else part]
    group[int(last) if last.isdigit() else last] = value
    with pytest.raises(InputError, match=re.escape(f": {key}: ")):
        read_values(tmp_path / "params.yaml", params_values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.labels", "people", "expected a list, not 'people': write [people]"),
        ("data.labels", "cat, dog", "expected a list, not 'cat, dog': write [cat, dog]"),
        ("data.labels", None, "expected a list, not None: write []"),
        ("model.linear", 512, "expected a list, not 512: write [512]"),
    ],
)
def test_wrong_kind_of_value_is_reported_with_the_fix(
    key: str, value: object, message: str, params_values: Values
) -> None:
    with pytest.raises(InputError) as caught:
        validate_all(apply_overrides(params_values, {key: value}), "params.yaml")
    assert str(caught.value) == f"params.yaml: {key}: {message}"


def test_weights_are_ignored_for_the_conv_network(params_values: Values, tmp_path: Path) -> None:
    """This happens after `phototag recipe pretrained-best` with `-S model.name=conv`."""
    params_values["model"] |= {"name": "conv", "weights": ["a", "b"], "freeze": True}
    params = read_values(tmp_path / "params.yaml", params_values)
    assert params.model.backbones == ()
    assert not params.model.frozen
    with pytest.raises(InputError, match=r"set model\.name to a backbone, or choose another"):
        read_values(tmp_path / "params.yaml", params_values | {"optimizer": "lbfgs"})


def test_all_problems_are_reported_at_once(params_values: Values, tmp_path: Path) -> None:
    params_values["lr"] = -1
    params_values["split"]["val"] = 2
    with pytest.raises(InputError, match=r"lr: .*; split\.val: "):
        read_values(tmp_path / "params.yaml", params_values)


def test_float_without_a_decimal_point_is_parsed(params_values: Values, tmp_path: Path) -> None:
    text = yaml.safe_dump(params_values | {"lr": 0.25}).replace("lr: 0.25", "lr: 1e-05")
    assert yaml.safe_load(text)["lr"] == "1e-05"
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_all_params(path).lr == 1e-5


def test_overridden_block_uses_the_defaults(params_values: Values, tmp_path: Path) -> None:
    params_values["model"]["conv"] = [{"out": 8, "kernel": 5}]
    (block,) = read_values(tmp_path / "params.yaml", params_values).model.conv
    assert (block.stride, block.padding, block.pool, block.pool_stride) == (1, 0, 1, None)


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.7, 0.4)])
def test_split_without_train_photos_is_refused(
    val: float, test: float, params_values: Values, tmp_path: Path
) -> None:
    params_values["split"] = {"val": val, "test": test}
    with pytest.raises(InputError, match=r"split: .*leave no photos for train"):
        read_values(tmp_path / "params.yaml", params_values)


def test_train_settings_exclude_params_that_do_not_affect_the_weights(
    params_values: Values, tmp_path: Path
) -> None:
    before = read_values(tmp_path / "params.yaml", params_values).train_settings()
    params_values["evaluate"]["prior_strength"] += 1
    params_values["data"]["raw"] = "elsewhere"
    assert read_values(tmp_path / "params.yaml", params_values).train_settings() == before
    for key, value in {"lr": 0.5, "optimizer": "sgd", "precision": "bf16", "seed": 9}.items():
        changed = read_values(tmp_path / "params.yaml", params_values | {key: value})
        assert changed.train_settings() != before, key
    params_values["model"]["linear"] = [7]
    assert read_values(tmp_path / "params.yaml", params_values).train_settings() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"a: " + b"[" * 5000, "is not valid YAML"),
        (b"a: 2025-02-31", "is not valid YAML: day is out of range"),
        (b"", "expected a mapping of keys to values"),
        (b"- 1", "expected a mapping of keys to values"),
        (b"<<<<<<< HEAD\nlr: 1\n=======\nlr: 2\n>>>>>>> b\n", "params.yaml holds merge conflict"),
        ("data: {raw: Fotos fürs Album}".encode("latin-1"), r"is not UTF-8 \(byte 19\): save it"),
        (None, "is missing"),
    ],
)
def test_invalid_file_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_all_params(path)


BACKBONES: list[tuple[Values, tuple[tuple[str, str | None], ...]]] = [
    ({}, ()),
    ({"weights": "DEFAULT"}, ()),
    ({"name": "resnet18"}, (("resnet18", None),)),
    ({"name": "timm/a+b", "weights": "w"}, (("timm/a", "w"), ("b", "w"))),
    ({"name": "a+b", "weights": ["v", "w+x"]}, (("a", "v"), ("b", "w+x"))),
]


@pytest.mark.parametrize(("model", "expected"), BACKBONES)
def test_each_backbone_is_paired_with_its_weights(
    params_values: Values, tmp_path: Path, model: Values, expected: Any
) -> None:
    params_values["model"] |= model
    assert read_values(tmp_path / "params.yaml", params_values).model.backbones == expected


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"weights": 3}, r"model\.weights: expected null, a name, or a list .*, not 3$"),
        ({"weights": ["a", None]}, r"model\.weights: expected null, a name"),
        ({"weights": ""}, r"model\.weights: expected null, a name"),
        ({"name": "a+b", "weights": ["a"]}, r"model: weights has 1 entries for the 2 backbones"),
        ({"name": "a", "weights": ["a", "b"]}, r"model: weights has 2 entries for the 1 backbones"),
        (
            {"name": "a+"},
            r"model: name a\+: expected names of torchvision or timm backbones joined by \+",
        ),
        ({"name": "conv+resnet18"}, r"model: name conv\+resnet18: expected names of"),
        (
            {"name": "resnet18", "freeze": True},
            r"model: freeze requires pretrained weights, but weights is null",
        ),
    ],
)
def test_backbones_and_weights_that_do_not_match_are_refused(
    params_values: Values, tmp_path: Path, model: Values, message: str
) -> None:
    params_values["model"] |= model
    with pytest.raises(InputError, match=message):
        read_values(tmp_path / "params.yaml", params_values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pos_weight": True, "train.loss": "focal"},
            "pos_weight requires loss bce, not focal: set pos_weight to false or train.loss to bce",
        ),
        (
            {"train.label_smoothing": 0.1, "train.loss": "asymmetric"},
            "train.label_smoothing requires loss bce or focal, not asymmetric",
        ),
        (
            {"model.name": "a", "model.weights": "w", "model.freeze": True, "augment.crop": 0.1},
            "augment.crop has no effect on the cached features of frozen",
        ),
        (
            {"optimizer": "lbfgs"},
            "optimizer lbfgs requires the cached features of frozen backbones",
        ),
        (
            {"optimizer": "lbfgs", "model.name": "a", "model.weights": "w", "model.freeze": True},
            "optimizer lbfgs does not support model.linear: set model.linear to []",
        ),
    ],
)
def test_values_that_exclude_each_other_are_refused(
    changes: Values, message: str, params_values: Values
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        validate_all(apply_overrides(params_values, changes), "params.yaml")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_name_of_a_renamed_key_is_refused_with_the_new_name(
    old: str, new: str, params_values: Values
) -> None:
    group, key = old.split(".")
    params_values[group][key] = params_values[group].pop(new.split(".")[1])
    with pytest.raises(InputError, match=f"{old} was renamed to {new}: rename the key"):
        validate_all(params_values, "params.yaml")


def test_schema_has_the_params_of_all_packages() -> None:
    """A package whose params are not part of the whole schema would escape validation."""
    package = Path(__file__).parents[2] / "src" / "phototag"
    groups = set()
    for file in package.glob("*/params.py"):
        module = import_module(f"phototag.{file.parent.name}.params")
        groups |= {
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, ParamGroup)
        }
    stage_schemas = {group for group in groups if group.__module__ != "phototag.base.params"}
    used = set(Params.__mro__) | {field.annotation for field in Params.model_fields.values()}
    # `DataParams` contains the key of `RawParams`.
    assert stage_schemas - used == {ConvParams, RawParams, Target}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("f1", {"default": "f1"}),
        ({"precision": "0.95"}, {"default": "precision 0.95"}),
        ({"recall": 0.9}, {"default": "recall 0.9"}),
        ({"default": "f1", "cat": {"recall": 0.9}}, {"default": "f1", "cat": "recall 0.9"}),
        # Labels may have the names of the keys.
        ({"precision": {"recall": 0.9}}, {"precision": "recall 0.9"}),
        ({"recall": "f1"}, {"recall": "f1"}),
    ],
)
def test_target_is_read_for_all_labels_or_by_label(
    given: Any, expected: dict[str, str], params_values: Values
) -> None:
    params_values["evaluate"]["target"] = given
    params = validate_all(params_values, "params.yaml")
    for read in (params, validate_all(params.model_dump(mode="json"), "params.yaml")):
        found = read.evaluate.target
        assert {label: str(target) for label, target in found.items()} == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": 1}, "evaluate.target.default.precision: input should be less than 1"),
        ({"precision": 0.9, "recall": 0.9}, "evaluate.target.default: expected f1, {precision: N"),
        ({"cat": 0.9}, "evaluate.target.cat: expected f1, {precision: NUMBER} or {recall: NUMBER}"),
        ({"cat": {"f1": 0.9}}, "evaluate.target.cat.f1 is unknown"),
        ("best", "evaluate.target.default: expected f1"),
        (None, "evaluate.target.default: expected f1"),
    ],
)
def test_invalid_target_is_refused(given: Any, message: str, params_values: Values) -> None:
    params_values["evaluate"]["target"] = given
    with pytest.raises(InputError, match=re.escape(message)):
        validate_all(params_values, "params.yaml")


def test_target_of_an_unknown_label_is_refused() -> None:
    values = {"prior_strength": 10, "calibrate": False, "resamples": 50, "target": {"dgo": "f1"}}
    params = EvaluateParams.model_validate(values)
    with pytest.raises(InputError, match="the dataset has no label 'dgo'"):
        params.list_targets(["dog", "cat"])
