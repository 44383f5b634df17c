"""Vision models of transformers as backbones: equal outputs, and heads are exported unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from omegaconf import OmegaConf
from torch import nn
from transformers import AutoModel, AutoModelForImageClassification

from warmstart.config.resolve import with_initial_backbone
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.data.preprocess import rebuild
from warmstart.data.preprocess.image import Preprocessor
from warmstart.huggingface.image import HuggingFaceImages
from warmstart.huggingface.load import open_hub
from warmstart.run.saved import load_weights

transformers.logging.disable_progress_bar()

TWO = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
STAGES = {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2}
CONFIGS = {
    "vit": {**TWO, "patch_size": 4},
    "dinov2": {**TWO, "patch_size": 4, "mlp_ratio": 2},
    "dinov2_with_registers": {**TWO, "patch_size": 4, "mlp_ratio": 2, "num_register_tokens": 2},
    "deit": {**TWO, "patch_size": 4, "architectures": ["DeiTForImageClassification"]},
    "convnext": {**STAGES, "patch_size": 2},
    "convnextv2": {**STAGES, "patch_size": 2},
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 2},
}
PIXELS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 1 / 255}
SIZE = 16


def saved_folder(folder: Path, kind: str, channels: int = 3, side: int = SIZE, **overrides: object) -> Path:
    """A small classifier with random weights, as transformers saves it, and how its images are to be scaled."""
    torch.manual_seed(0)
    settings = {**CONFIGS[kind], "image_size": side, "num_channels": channels}
    config = transformers.CONFIG_MAPPING[kind](**settings, num_labels=5)
    model = AutoModelForImageClassification.from_config(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    pixels = {key: value[:channels] if isinstance(value, list) else value for key, value in PIXELS.items()}
    (folder / "preprocessor_config.json").write_text(json.dumps({**pixels, "size": side, **overrides}))
    return folder


def opened(folder: Path, size: int = SIZE, pooling: str | None = None) -> HuggingFaceImages:
    """The backbone that a start from the folder has, with its weights."""
    saved = open_hub(f"hf:{folder}", pooling)
    node = {key: value for key, value in saved.card["backbone"].items() if key != "_target_"}
    backbone = HuggingFaceImages(Spec("image", (saved.spec.shape[0], size, size), ("a", "b", "c")), **node)
    assert load_weights(backbone, saved.weights, "test")["fraction"] == 1.0
    return backbone.eval()


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_features_are_those_of_transformers_in_the_models_size_and_another(kind: str, tmp_path: Path):
    folder = saved_folder(tmp_path, kind)
    theirs = AutoModel.from_pretrained(folder).eval()
    for size in (SIZE, 24):
        backbone = opened(folder, size)
        x = torch.randn(3, 3, size, size)
        interpolated = {"interpolate_pos_encoding": True} if kind in ("vit", "deit") else {}
        found = theirs(pixel_values=x, **interpolated)
        tokens, pooled = backbone(x).tokens, backbone(x).pooled
        expected = found.last_hidden_state
        expected = expected.flatten(2).transpose(1, 2) if expected.ndim == 4 else expected
        assert torch.allclose(tokens, expected, atol=1e-5)
        has_first = kind.startswith(("vit", "dinov2", "deit"))
        assert torch.allclose(pooled, expected[:, 0] if has_first else found.pooler_output.flatten(1), atol=1e-5)
        assert pooled.shape == (3, backbone.width)
        assert torch.allclose(opened(folder)(x).pooled, pooled, atol=1e-5), "made for another size than it sees"


def test_the_mean_is_that_of_the_patches(tmp_path: Path):
    backbone = opened(saved_folder(tmp_path, "dinov2_with_registers"), pooling="mean")
    features = backbone(torch.randn(2, 3, SIZE, SIZE))
    assert features.tokens.shape == (2, 1 + 2 + 16, 16)
    assert torch.allclose(features.pooled, features.tokens[:, 3:].mean(1))


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_has_a_depth(kind: str, tmp_path: Path):
    backbone = opened(saved_folder(tmp_path, kind))
    depths = backbone.depths()
    for name, _ in backbone.named_parameters():
        assert sum(name == prefix or name.startswith(f"{prefix}.") for prefix in depths) == 1, name
    assert depths["model.embeddings" if kind != "resnet" else "model.embedder"] == 0
    assert max(depths.values()) >= 2


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("vit", None),
        ("deit", None),
        ("dinov2", None),
        ("dinov2", "mean"),
        ("convnext", None),
        ("swin", None),
        ("resnet", None),
    ],
)
@torch.no_grad()
def test_a_finetuned_model_goes_back_with_equal_logits(kind: str, pooling: str | None, tmp_path: Path):
    backbone = opened(saved_folder(tmp_path / "there", kind), pooling=pooling)
    head = nn.Linear(backbone.width, 3)
    model = backbone.exported("sequence_classification", head, Spec("image", (3, SIZE, SIZE), ("a", "b", "c")))
    model.save_pretrained(tmp_path / "back")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    x = torch.randn(4, 3, SIZE, SIZE)
    assert torch.allclose(model(pixel_values=x).logits, head(backbone(x).pooled), atol=1e-5)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    alone = backbone.exported(None, None, Spec("image", (3, SIZE, SIZE)))
    assert torch.equal(alone(pixel_values=x).last_hidden_state, backbone.model(pixel_values=x).last_hidden_state)


def test_what_transformers_has_no_class_for_is_not_exported(tmp_path: Path):
    backbone = opened(saved_folder(tmp_path, "vit"), pooling="mean")
    spec = Spec("image", (3, SIZE, SIZE), ("a", "b"))
    with pytest.raises(
        UserError, match=r"ViTForImageClassification .*pooling=mean does: finetune with .* backbone\.pooling=cls"
    ):
        backbone.exported("sequence_classification", nn.Linear(16, 2), spec)
    with pytest.raises(UserError, match="objective=classification only"):
        backbone.exported(
            "sequence_classification", nn.Linear(16, 1), Spec("image", (3, 16, 16), ("a",), (0.5,), (1.0,))
        )


@pytest.mark.parametrize(
    ("kind", "shape", "pooling", "message"),
    [
        ("vit", (1, 16, 16), None, r"1 channels, but the vit takes 3: .*data\.channels=3"),
        ("vit", (3, 2, 2), None, r"does not support images of 2 x 2 pixels: set data\.size=16"),
        (
            "resnet",
            (3, 16, 16),
            "cls",
            r"no position before its patches: set backbone=huggingface_images backbone\.pooling=mean",
        ),
    ],
)
def test_images_and_poolings_that_do_not_fit_are_refused(
    kind: str, shape: tuple[int, ...], pooling: str | None, message: str
):
    architecture = {"model_type": kind, **CONFIGS[kind], "image_size": 16}
    with pytest.raises(UserError, match=message) as error:
        HuggingFaceImages(Spec("image", shape), architecture, pooling)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ({"size": 8}, [3, 8, 8]),
        ({"size": {"height": 8, "width": 12}}, [3, 8, 12]),
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 8, "width": 8}}, [3, 8, 8]),
        ({"size": {"shortest_edge": 20}, "crop_size": 8, "do_center_crop": False}, [3, 20, 20]),
        ({"size": None}, [3, 16, 16]),
    ],
)
def test_pixels_are_scaled_and_sized_as_the_folder_says(overrides: dict, shape: list[int], tmp_path: Path):
    state = open_hub(f"hf:{saved_folder(tmp_path, 'vit', **overrides)}").preprocessor
    assert state["shape"] == shape
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *shape[1:]), dtype=np.uint8)
    preprocessor = rebuild(state)
    mean, std = (torch.tensor(PIXELS[key])[:, None, None] for key in ("image_mean", "image_std"))
    expected = (torch.from_numpy(pixels) / 255 - mean) / std
    assert torch.allclose(preprocessor(preprocessor.encode(pixels).float()), expected, atol=1e-5)
    fainter = rebuild(state).adapted(Preprocessor(white=16.0))
    assert torch.allclose(fainter(torch.from_numpy(pixels) * (16 / 255)), expected, atol=1e-5)


def test_images_of_another_size_are_said_and_kept_from_then_on(tmp_path: Path, capfd: pytest.CaptureFixture):
    preprocessor = rebuild(open_hub(f"hf:{saved_folder(tmp_path, 'vit')}").preprocessor)
    preprocessor.encode(np.zeros((1, 3, 8, 8), np.uint8))
    assert "images are 8 x 8 pixels, but the model was trained on 16 x 16" in capfd.readouterr().err
    with pytest.raises(UserError, match="takes images of"):
        rebuild(preprocessor.state()).encode(np.zeros((1, 3, 16, 16), np.uint8))


@pytest.mark.parametrize(
    ("file", "overrides", "message"),
    [
        ("preprocessor_config.json", None, r"has no preprocessor_config\.json"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, r"image_mean=\[0\.5\], but the model has 3 channels"),
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0]}, "give numbers above 0"),
        ("preprocessor_config.json", {"size": {"longest_edge": 3}}, "no image size"),
        ("preprocessor_config.json", {"do_flip_channel_order": True}, "do_flip_channel_order, which is not supported"),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "m.M"}}, "needs custom code"),
        ("config.json", {"auto_map": {"AutoModel": "m.M"}}, "needs custom code"),
        ("config.json", {"model_type": "clip", "vision_config": {}}, "for images and texts"),
        ("model.safetensors", None, r"no model\.safetensors.*pickle"),
    ],
)
def test_folders_that_cannot_be_used_are_refused_at_once(
    file: str, overrides: dict | None, message: str, tmp_path: Path
):
    path = saved_folder(tmp_path, "vit") / file
    if overrides is None:
        path.unlink()
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **overrides}))
    with pytest.raises(UserError, match=message) as error:
        with_initial_backbone(OmegaConf.create({"stage": "finetune", "init": f"hf:{tmp_path}", "backbone": {}}))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["vit", "convnext", "swin", "dinov2"])
@torch.no_grad()
def test_a_trained_classifier_is_the_head_where_it_is_one_layer_on_what_is_pooled(kind: str, tmp_path: Path):
    folder = saved_folder(tmp_path, kind)
    card = json.loads((folder / "config.json").read_text())
    names = {str(number): label for number, label in enumerate("edcba")}
    (folder / "config.json").write_text(json.dumps({**card, "id2label": names}))
    saved = open_hub(f"hf:{folder}")
    assert saved.card["task"] == "sequence_classification"
    assert saved.spec.labels == tuple("abcde")
    if kind == "dinov2":  # whose classifier sees the mean of the patches too
        assert saved.head == {}
        return
    x = torch.randn(2, 3, SIZE, SIZE)
    ours = nn.functional.linear(opened(folder)(x).pooled, saved.head["head.weight"], saved.head["head.bias"])
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()(pixel_values=x).logits
    assert torch.allclose(ours, theirs.flip(1), atol=1e-5)
