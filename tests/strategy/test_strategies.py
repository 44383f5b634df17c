"""Every strategy on every backbone: each parameter is claimed once, frozen ones are bit-identical."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.core import protocols
from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.data.transforms.augment import Augment
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.main import CONF
from warmstart.objective.classification import Classification
from warmstart.training.components import build, build_function
from warmstart.training.modules import FinetuneModule
from warmstart.training.optimization import assign, at
from warmstart.training.schedule import constant

CHOOSES = ("auto",)  # among others, and claims nothing itself
STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml") if path.stem not in CHOOSES)
BACKBONES = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))
# One of each class and stem is trained; the others differ in size.
KINDS = ("huggingface", "huggingface_images", "mlp", "resnet", "speech", "tiny", "vit")
ADAPTERS = ("ia3", "lora")
PICKY = ("bitfit", "frozen_half", "norm_only", *ADAPTERS)  # a backbone may have nothing for them
STEPS = 6


@functools.cache
def composed_backbone(name: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(f"backbone/{name}").backbone


@functools.cache
def built(backbone: str) -> tuple[protocols.Backbone, Spec, torch.Tensor, torch.Tensor]:
    """A tiny backbone, its spec, inputs, and the state of the random numbers after them: copied before use."""
    torch.manual_seed(0)
    node = copy.deepcopy(composed_backbone(backbone))
    modalities = get_object((node.stem if "stem" in node else node)._target_).modalities
    modality = next(kind for kind in ("image", "vector", "text", "speech") if kind in modalities)
    labels = ("a", "b")
    x = {
        "image": torch.randn(8, 3, 16, 16),
        "vector": torch.randn(8, 6),
        "text": torch.randint(5, 30, (8, 6)),
        "speech": torch.randn(8, 6, 2, 8),
    }[modality]
    vocabulary = Vocabulary(30, padding=0, end=3, mask=4) if "text" in modalities else None
    spec = Spec(modality, tuple(x.shape[1:]), labels, vocabulary=vocabulary)
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
    elif backbone == "huggingface_seq2seq":
        node.architecture = {
            **{"model_type": "t5", "vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2},
            **{"num_heads": 2, "decoder_start_token_id": 0},
        }
    elif backbone == "huggingface_whisper":
        x = torch.randn(8, 20, 8)
        node.architecture = {
            **{"model_type": "whisper", "vocab_size": 30, "num_mel_bins": 8, "d_model": 16, "max_source_positions": 10},
            **{"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
            **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
            **{"decoder_start_token_id": 3, "begin_suppress_tokens": None},
        }
    elif backbone == "huggingface_speech":
        x = torch.randn(8, 400)
        node.architecture = {
            **{"model_type": "wav2vec2", "hidden_size": 16, "intermediate_size": 24, "layerdrop": 0.0},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "mask_time_prob": 0.0},
            **{"conv_dim": [8, 8], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_feat_extract_layers": 2},
            **{"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2},
        }
    if "dropout" in node:
        node.dropout = 0.1
    return build(node, spec=spec), spec, x, torch.get_rng_state()


def make(strategy: str, backbone: str, **settings: Any) -> tuple[FinetuneModule, Batch]:
    """A tiny module and a batch for it."""
    part, spec, x, state = copy.deepcopy(built(backbone))
    torch.set_rng_state(state)
    chosen = build(OmegaConf.merge(OmegaConf.load(CONF / "strategy" / f"{strategy}.yaml"), settings))
    chosen.prepare(part)
    module = FinetuneModule(
        part,
        Classification(part, spec, cross_entropy),
        chosen,
        build_function(OmegaConf.load(CONF / "optimizer" / "adamw.yaml")),
        constant,
        Augment(protocols.Preprocessor()),
        seed=0,
    )
    return module, Batch(x, torch.arange(8) % 2)


def optimize(module: FinetuneModule) -> tuple[torch.optim.Optimizer, Any]:
    module._trainer = SimpleNamespace(estimated_stepping_batches=STEPS)
    made = module.configure_optimizers()
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def take(module: FinetuneModule, batch: Batch, optimizer: torch.optim.Optimizer, schedule: Any, step: int) -> None:
    module._trainer = SimpleNamespace(
        global_step=step,
        accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(total_batch_idx=step),
        optimizers=[optimizer],
    )
    module.train()
    module.on_train_batch_start(batch, step)
    loss = module.training_step(batch, step)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


@pytest.mark.parametrize("backbone", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_frozen_at_a_step_does_not_move_to_the_bit_and_the_rest_does(strategy: str, backbone: str):
    try:
        module, batch = make(strategy, backbone)
    except UserError:
        assert strategy in PICKY
        return
    assert set(module.scales) == {name for name, _ in module.named_parameters()}
    optimizer, schedule = optimize(module)
    moved = set()
    for step in range(STEPS):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        started = set(optimizer.state)
        take(module, batch, optimizer, schedule, step)
        for name, value in module.named_parameters():
            if at(module.scales[name], step / STEPS) == 0:
                assert not value.requires_grad
                assert torch.equal(before[name], value), name
                assert value in started or value not in optimizer.state, name
            elif not torch.equal(before[name], value):
                moved.add(name)
        for place, part in module.named_modules():
            parameters = list(part.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                assert not any(inner.training for inner in part.modules()), place
                for name, value in part.named_buffers(prefix=place):
                    assert torch.equal(before.get(name, value), value), name
    resting = {name for name, scale in module.scales.items() if at(scale, 1.0) == 0}
    assert moved == {name for name in module.scales if name not in resting and "mask_token" not in name}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_parameter_of_every_backbone_is_claimed_once_at_every_share_of_the_run(strategy: str):
    for backbone in BACKBONES:
        try:
            module, _ = make(strategy, backbone)
        except UserError:
            assert strategy in PICKY
            continue
        assert set(module.scales) == {name for name, _ in module.named_parameters()}
        for progress in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0):
            scales = {name: at(scale, progress) for name, scale in module.scales.items()}
            assert all(scale >= 0 for scale in scales.values())
            assert any(scales.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resumed_at_any_step_is_what_an_undisturbed_run_is(strategy: str):
    ends = []
    backbone = {**dict.fromkeys(ADAPTERS, "vit"), "frozen_half": "encoder_decoder"}.get(strategy, "resnet")
    for stop in (0, 1, 3, 5):
        module, batch = make(strategy, backbone)
        optimizer, schedule = optimize(module)
        for step in range(stop):
            take(module, batch, optimizer, schedule, step)
        kept = [copy.deepcopy(part.state_dict()) for part in (module, optimizer, schedule, module.strategy)]
        module, batch = make(strategy, backbone)
        parts = (module, *optimize(module), module.strategy)
        for part, state in zip(parts, kept):
            part.load_state_dict(state)
        for step in range(stop, STEPS):
            take(module, batch, *parts[1:3], step)
        ends.append(module.state_dict())
    for end in ends:
        for name, value in end.items():
            assert torch.equal(value, ends[0][name]), name


def rates(module: FinetuneModule, name: str) -> list[float]:
    """The learning rate of a parameter at each step, as a share of the base rate; 0 where it is frozen."""
    module.scheduler = lambda step, total: 1 - step / total
    optimizer, schedule = optimize(module)
    group = next(g for g in optimizer.param_groups if any(p is module.get_parameter(name) for p in g["params"]))
    found = []
    for _ in range(STEPS):
        found.append(group["lr"] / module.optimizer.keywords["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_lp_ft_restarts_the_schedule_and_gradual_does_not():
    module, _ = make("lp_ft", "resnet")
    head, stem = "objective.head.weight", "backbone.stem.0.weight"
    assert rates(module, head) == pytest.approx([1, 2 / 3, 1 / 3, 1, 2 / 3, 1 / 3])
    assert rates(module, stem) == pytest.approx([0, 0, 0, 1, 2 / 3, 1 / 3])
    module, _ = make("gradual", "resnet")
    assert rates(module, head) == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert rates(module, stem) == pytest.approx([0, 0, 0, 3 / 6, 2 / 6, 1 / 6])


def test_blocks_open_from_the_top_and_depths_slow_down_towards_the_input():
    module, _ = make("gradual", "vit")
    opened = [{name for name, scale in module.scales.items() if at(scale, share)} for share in (0.0, 0.25, 0.5)]
    assert {name.split(".")[0] for name in opened[0]} == {"objective"}
    assert {".".join(name.split(".")[:3]) for name in opened[1] - opened[0]} >= {"backbone.norm.weight"}
    assert not any(name.startswith("backbone.blocks.0") for name in opened[1])
    assert opened[2] == set(module.scales)
    scales = make("layer_decay", "vit")[0].scales
    assert scales["backbone.norm.weight"] == 1
    assert scales["backbone.blocks.1.norm1.weight"] == 0.75
    assert scales["backbone.position"] == 0.75**3


@pytest.mark.parametrize("strategy", ["linear_probe", "bitfit", "norm_only"])
def test_what_trains_alone_does_so_at_the_strategys_own_rate(strategy: str):
    scales = make(strategy, "vit", rate=4.0)[0].scales
    assert scales["objective.head.weight"] == 4
    assert set(scales.values()) == {0, 4}


def test_the_probe_of_lp_ft_has_a_rate_of_its_own_and_what_follows_has_not():
    module, _ = make("lp_ft", "resnet", rate=10.0)
    assert rates(module, "objective.head.weight") == pytest.approx([10, 20 / 3, 10 / 3, 1, 2 / 3, 1 / 3])
    assert rates(module, "backbone.stem.0.weight") == pytest.approx([0, 0, 0, 1, 2 / 3, 1 / 3])


def test_partial_trains_the_blocks_asked_for_and_no_more_than_there_are():
    module, _ = make("partial", "mlp", blocks=1, side="first")
    assert {name[:17] for name in module.trained if "backbone" in name} == {"backbone.layers.0"}
    with pytest.raises(UserError, match=r"strategy.blocks=9: backbone MLP has \d; give at most"):
        make("partial", "mlp", blocks=9)


def test_l2_sp_pulls_harder_towards_the_input_where_asked_and_to_the_start():
    moves = {}
    for alpha, decay in ((0.0, 1.0), (100.0, 1.0), (100.0, 0.001)):
        module, batch = make("l2_sp", "mlp", alpha=alpha, decay=decay)
        start = [value.clone() for value in module.backbone.parameters()]
        optimizer, schedule = optimize(module)
        for step in range(STEPS):
            take(module, batch, optimizer, schedule, step)
        moves[alpha, decay] = [float((a - b.detach()).norm()) for a, b in zip(start, module.backbone.parameters())]
    assert all(held < free for held, free in zip(moves[100.0, 1.0], moves[0.0, 1.0]))
    assert moves[100.0, 0.001][-2] > moves[100.0, 1.0][-2]


def test_mixout_is_plain_finetuning_at_p_0_and_changes_training_alone_above():
    losses = {}
    for p in (0.0, 0.9):
        module, batch = make("mixout", "mlp", p=p)
        module.eval()  # no dropout
        with torch.no_grad():
            for value in module.backbone.parameters():
                value.add_(0.1)
        module._trainer = SimpleNamespace(accumulate_grad_batches=1, fit_loop=SimpleNamespace(total_batch_idx=0))
        plain = module.objective.step(module.backbone, batch).loss
        losses[p] = float(module.training_step(batch, 0) - plain)
    assert losses[0.0] == pytest.approx(0, abs=1e-6)
    assert abs(losses[0.9]) > 1e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("strategy=lp_ft strategy.probe=1.0", "strategy.probe=1.0: must be a number above 0 and below 1"),
        ("strategy=gradual strategy.until=0.0", "strategy.until=0.0: must be a number above 0"),
        ("strategy=layer_decay strategy.decay=0.0", "strategy.decay=0.0: must be a number above 0"),
        ("strategy=partial strategy.blocks=0", "strategy.blocks=0: must be a whole number above 0"),
        ("strategy=partial strategy.side=top", "strategy.side=top: must be first or last"),
        ("strategy=partial strategy.blocks=7", "strategy.blocks=7: backbone MLP has"),
        ("strategy=frozen_half", "strategy=frozen_half: backbone MLP has no encoder and decoder"),
        ("strategy=norm_only", "strategy=norm_only: backbone MLP has no norm layers"),
        ("strategy=bitfit strategy.rate=0.0", "strategy.rate=0.0: must be a number above 0"),
        ("strategy=auto strategy.options.lora.rank=0", "strategy.options.lora.rank=0: must be a whole number above 0"),
        ("strategy=mixout strategy.p=1.0", "strategy.p=1.0: must be a number, 0 or more and below 1"),
        ("strategy=l2_sp strategy.alpha=-1.0", "alpha=-1.0"),
        ("strategy=lp_ft +trainer.max_time=10", "strategy=lp_ft depends on the number of steps"),
    ],
)
def test_an_incompatible_strategy_is_reported_in_a_line(words: str, message: str, cli):
    outcome = cli("stage=finetune", "init=scratch", "visualization=[]", *words.split())
    assert outcome.status == 2
    assert message in outcome.error


def test_claims_must_cover_every_parameter_once():
    names = ["backbone.a", "backbone.b", "objective.c"]
    assert assign([("backbone.*", 0.5), ("objective.*", 1.0)], names)["backbone.a"] == 0.5
    with pytest.raises(UserError, match=r"objective.c matches no pattern"):
        assign([("backbone.*", 1.0)], names)
    with pytest.raises(UserError, match=r"matches backbone.\* and \*.a"):
        assign([("backbone.*", 1.0), ("*.a", 1.0), ("objective.*", 1.0)], names)
    with pytest.raises(UserError, match="matches no parameter"):
        assign([("backbone.*", 1.0), ("objective.*", 1.0), ("nothing.*", 1.0)], names)
    with pytest.raises(UserError, match="all parameters are frozen"):
        assign([("*", 0.0)], names)


def test_rates_follow_the_scale_and_norms_and_biases_do_not_decay():
    module, _ = make("full", "vit")
    module.scales = {n: 0.1 if n.startswith("backbone.") else 1.0 for n in module.scales}
    optimizer, _ = optimize(module)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
    rates = {round(group["initial_lr"], 9) for group in optimizer.param_groups}
    assert rates == {1e-3, 1e-4}
