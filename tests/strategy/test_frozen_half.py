"""Strategies that freeze the encoder or the decoder."""

from __future__ import annotations

import copy

import pytest
import torch
from omegaconf import OmegaConf
from tests.strategy.test_strategies import built, make, optimize, take

from warmstart.core import protocols
from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.data.transforms.augment import Augment
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.main import CONF
from warmstart.objective.seq2seq import Seq2Seq
from warmstart.strategy.frozen_half import FrozenHalf
from warmstart.training.components import build_function
from warmstart.training.modules import FinetuneModule
from warmstart.training.schedule import constant


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("backbone", ["encoder_decoder", "huggingface_seq2seq", "huggingface_whisper"])
def test_one_half_and_what_it_shares_keep_their_values_and_the_other_is_trained(backbone: str, half: str):
    part, spec, x, state = copy.deepcopy(built(backbone))
    torch.set_rng_state(state)
    module = FinetuneModule(
        part,
        Seq2Seq(part, spec, cross_entropy, metric="loss"),
        FrozenHalf(half),
        build_function(OmegaConf.load(CONF / "optimizer" / "adamw.yaml")),
        constant,
        Augment(protocols.Preprocessor()),
        seed=0,
    )
    before = {name: value.clone() for name, value in part.state_dict().items()}
    batch = Batch(x, torch.randint(5, 30, (8, 4)))
    optimizer, schedule = optimize(module)
    for step in range(2):
        take(module, batch, optimizer, schedule, step)
    moved = {name for name, value in part.state_dict().items() if not torch.equal(before[name], value)}
    other = "decoder" if half == "encoder" else "encoder"
    assert moved >= {
        name for name, _ in part.named_parameters() if f"{other}.block" in name or f"{other}.layers" in name
    }
    assert not any(f"{half}." in name for name in moved)
    shared = {"encoder_decoder": "stem.embedding.weight", "huggingface_seq2seq": "model.shared.weight"}
    assert shared.get(backbone) not in moved


def test_a_backbone_without_halves_is_refused():
    with pytest.raises(UserError, match="strategy=frozen_half: backbone MLP has no encoder and decoder"):
        make("frozen_half", "mlp")
