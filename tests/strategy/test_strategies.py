"""Every strategy in conf/strategy on every backbone: each parameter claimed once, frozen means frozen to the bit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from warmstart.contracts import Spec, UserError, Vocabulary
from warmstart.data.augment import Augment
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.main import CONF
from warmstart.module.finetune import FinetuneModule
from warmstart.module.optimization import assign
from warmstart.objective.classification import Classification
from warmstart.stage.parts import build, build_function
from warmstart.trainer.schedule import constant

STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))
BACKBONES = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))


def make(strategy: str, backbone: str) -> tuple[FinetuneModule, torch.Tensor]:
    torch.manual_seed(0)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        node = compose(f"backbone/{backbone}").backbone
    modalities = get_object((node.stem if "stem" in node else node)._target_).modalities
    labels = ("a", "b")
    x = {
        "image": torch.randn(8, 3, 16, 16),
        "vector": torch.randn(8, 6),
        "text": torch.randint(5, 30, (8, 6)),
        "speech": torch.randn(8, 6, 2, 8),
    }[next(kind for kind in ("image", "vector", "text", "speech") if kind in modalities)]
    vocabulary = Vocabulary(30, padding=0, mask=4) if "text" in modalities else None
    spec = Spec(next(iter(modalities)), tuple(x.shape[1:]), labels, vocabulary=vocabulary)
    if "depth" in node:
        node.depth = min(node.depth, 2)
        node.width, node.heads = node.width // node.heads * 2, 2
    if backbone == "huggingface":
        node.pooling = "mean"
        node.architecture = {
            **{"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 30, "hidden_size": 16},
            **{"num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32},
        }
    elif backbone == "huggingface_images":
        node.architecture = {
            **{"model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 16, "intermediate_size": 32},
            **{"num_attention_heads": 2, "num_hidden_layers": 2, "architectures": ["ViTModel"]},
        }
    elif backbone == "huggingface_speech":
        x = torch.randn(8, 400)
        node.architecture = {
            **{"model_type": "wav2vec2", "hidden_size": 16, "intermediate_size": 24, "layerdrop": 0.0},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "mask_time_prob": 0.0},
            **{"conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_feat_extract_layers": 2},
            **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
        }
    part = build(node, spec=spec)
    module = FinetuneModule(
        part,
        Classification(part, spec, cross_entropy),
        build(OmegaConf.load(CONF / "strategy" / f"{strategy}.yaml")),
        build_function(OmegaConf.load(CONF / "optimizer" / "adamw.yaml")),
        constant,
        Augment(lambda x: x, spec.modality),
        seed=0,
    )
    return module, x


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_parameters_and_buffers_do_not_move_and_the_rest_does(strategy: str, backbone: str):
    module, x = make(strategy, backbone)
    assert set(module.scales) == {name for name, _ in module.named_parameters()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    for _ in range(2):
        loss = module.objective.head(module.backbone(x).pooled).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = module.state_dict()
    for name, scale in module.scales.items():
        if scale == 0:
            assert torch.equal(before[name], after[name]), name
        elif "mask_token" not in name:
            assert not torch.equal(before[name], after[name]), name
    if strategy == "linear_probe":
        assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("backbone."))
        assert not any(part.training for part in module.backbone.modules())


def test_claims_must_cover_every_parameter_once():
    names = ["backbone.a", "backbone.b", "objective.c"]
    assert assign([("backbone.*", 0.5), ("objective.*", 1.0)], names)["backbone.a"] == 0.5
    with pytest.raises(UserError, match=r"objective.c is claimed by no pattern"):
        assign([("backbone.*", 1.0)], names)
    with pytest.raises(UserError, match=r"claimed by backbone.\* and \*.a"):
        assign([("backbone.*", 1.0), ("*.a", 1.0), ("objective.*", 1.0)], names)
    with pytest.raises(UserError, match="matches no parameter"):
        assign([("backbone.*", 1.0), ("objective.*", 1.0), ("nothing.*", 1.0)], names)
    with pytest.raises(UserError, match="nothing would train"):
        assign([("*", 0.0)], names)


def test_rates_follow_the_scale_and_norms_and_biases_do_not_decay():
    module, _ = make("full", "vit")
    module.scales = {n: 0.1 if n.startswith("backbone.") else 1.0 for n in module.scales}
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer = module.configure_optimizers()["optimizer"]
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    rates = {round(group["initial_lr"], 9) for group in optimizer.param_groups}
    assert rates == {1e-3, 1e-4}
