"""Transformer trunk on token ids: attention masks, pooling, masking, and heads with tied embeddings."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from warmstart.backbone.stem import FeatureStem, TextStem
from warmstart.backbone.transformer import Transformer
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary

LENGTH = 12
VOCABULARY = Vocabulary(40, padding=0, unknown=1, begin=2, end=3, mask=4, special=(0, 1, 2, 3, 4), joined=(20, 21, 22))
SPEC = Spec("text", (LENGTH,), vocabulary=VOCABULARY)
BOTH = {"mlp": "geglu", "bias": False, "position": "rotary"}
CAUSAL = {"mlp": "swiglu", "norm": "rms", "bias": False, "position": "rotary", "causal": True}
SETTINGS = {
    "like modernbert": BOTH,
    "in windows": BOTH | {"window": 2, "global_every": 2},
    "first pooled": BOTH | {"pooling": "cls"},
    "like llama": CAUSAL,
    "llama in groups": CAUSAL | {"kv_heads": 2},
    "like qwen3": CAUSAL | {"kv_heads": 2, "qk_norm": True},
    "causal windows, mean": CAUSAL | {"window": 2, "global_every": 2, "pooling": "mean"},
    "plain": {},
    "like gpt-2": {"causal": True},
    "one group, rms, last": {"kv_heads": 1, "norm": "rms", "pooling": "last", "mlp": "swiglu"},
}
every = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
rotary = pytest.mark.parametrize(
    "settings",
    [s for s in SETTINGS.values() if "position" in s],
    ids=[n for n, s in SETTINGS.items() if "position" in s],
)


def make(settings: dict, seed: int = 0, spec: Spec = SPEC) -> Transformer:
    """A trunk in evaluation mode, with weights large enough that attention makes a difference."""
    torch.manual_seed(seed)
    trunk = Transformer(spec, TextStem, **{"width": 32, "depth": 3, "heads": 4, **settings}).eval()
    for parameter in trunk.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return trunk


def rows(lengths: tuple[int, ...] = (12, 7, 1)) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(5, 40, (len(lengths), LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    return x.masked_fill(~mask, VOCABULARY.padding), mask


@every
def test_padding_changes_nothing(settings: dict):
    trunk = make(settings)
    x, mask = rows()
    features = trunk(x, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = trunk(x[row : row + 1, :length])
        torch.testing.assert_close(features.tokens[row : row + 1, :length], alone.tokens)
        torch.testing.assert_close(features.pooled[row : row + 1], alone.pooled)
    assert torch.isfinite(features.tokens).all()


@rotary
def test_documents_in_one_row_are_as_if_alone(settings: dict):
    trunk = make(settings)
    x, _ = rows((12, 12))
    numbers = torch.tensor([[1] * 4 + [2] * 8, [1] * 3 + [2] * 4 + [3] * 2 + [0] * 3])
    tokens = trunk(x, numbers).tokens
    for row in (0, 1):
        for number in range(1, numbers[row].max() + 1):
            inside = numbers[row] == number
            torch.testing.assert_close(tokens[row, inside], trunk(x[row : row + 1, inside]).tokens[0])
    assert not torch.allclose(tokens[0, 4:], trunk(x).tokens[0, 4:])


@every
def test_causal_sees_no_later_position_and_the_others_do(settings: dict):
    trunk = make(settings)
    x, _ = rows((12,))
    changed = x.clone()
    changed[:, 8:] = 39 - changed[:, 8:] % 30
    before, after = trunk(x).tokens[:, :8], trunk(changed).tokens[:, :8]
    assert torch.equal(before, after) == settings.get("causal", False)


def test_a_window_is_positions_on_each_side():
    settings = BOTH | {"depth": 2, "global_every": 2}
    x, _ = rows((12,))
    plain = make(settings)(x).tokens
    assert torch.equal(make(settings | {"window": 11})(x).tokens, plain)
    assert not torch.allclose(make(settings | {"window": 10})(x).tokens[:, [0, -1]], plain[:, [0, -1]])
    torch.testing.assert_close(make(settings | {"window": 10})(x).tokens[:, 1:-1], plain[:, 1:-1])


def test_pooling_is_over_valid_positions():
    x, mask = rows()
    last = mask.sum(1) - 1
    tokens = make(CAUSAL)(x, mask).tokens
    torch.testing.assert_close(make(CAUSAL)(x, mask).pooled, tokens[range(3), last])
    mean = make(CAUSAL | {"pooling": "mean"})(x, mask).pooled
    torch.testing.assert_close(mean, (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))
    norm = nn.LayerNorm(32, elementwise_affine=False)
    tokens = make(BOTH)(x, mask).tokens
    torch.testing.assert_close(make(BOTH | {"pooling": "cls"})(x, mask).pooled, norm(tokens[:, 0]))
    torch.testing.assert_close(make(BOTH)(x, mask.int()).pooled, make(BOTH)(x, mask).pooled)


@every
def test_every_parameter_learns_and_has_a_depth(settings: dict):
    trunk = make(settings).train()
    features = trunk(*rows())
    (features.tokens.square().sum() + features.pooled.square().sum()).backward()
    depths = trunk.depths()
    for name, parameter in trunk.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert sum(name == prefix or name.startswith(f"{prefix}.") for prefix in depths) == 1, name
    assert {prefix for prefix in depths if any(n.startswith(prefix) for n, _ in trunk.named_parameters())} == set(
        depths
    )


def test_grouped_heads_are_heads_with_equal_keys_and_values():
    grouped, full = make(CAUSAL | {"kv_heads": 2}), make(CAUSAL)
    state = grouped.state_dict()
    for index in range(3):
        q, k, v = state[f"blocks.{index}.qkv.weight"].split([32, 16, 16])
        k, v = (part.view(2, 8, 32).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))
        state[f"blocks.{index}.qkv.weight"] = torch.cat([q, k, v])
    full.load_state_dict(state)
    torch.testing.assert_close(full(*rows()).tokens, grouped(*rows()).tokens)


def test_hidden_positions_are_shown_as_the_mask_token():
    trunk = make(BOTH)
    x, mask = rows()
    hidden = torch.zeros_like(mask)
    hidden[:, ::3] = True
    assert torch.equal(trunk(x, mask, hidden).tokens, trunk(x.masked_fill(hidden, 4), mask).tokens)
    assert "mask_token" not in trunk.state_dict()
    without = make(BOTH, spec=Spec("text", (LENGTH,), vocabulary=Vocabulary(40, padding=0)))
    with pytest.raises(UserError, match="no mask token"):
        without(x, mask, hidden)


def test_tokens_are_targets_and_special_ones_stay_visible():
    trunk = make(BOTH)
    x = torch.tensor([[2, 10, 20, 21, 11, 3, 0], [22, 20, 10, 11, 22, 12, 3]])
    assert (trunk.target_kind, trunk.target_size) == ("category", 40)
    assert torch.equal(trunk.assemble(trunk.targets(x)), x)
    assert trunk.maskable(x).tolist() == [[False, True, True, True, True, False, False], [True] * 6 + [False]]
    assert trunk.word_ids(x).tolist() == [[0, 1, 1, 1, 2, 3, 4], [0, 0, 1, 2, 2, 3, 4]]


def test_abilities_follow_from_the_settings():
    assert Transformer.abilities(causal=True, width=8) == {"causal"}
    assert Transformer.abilities(_target_="x", stem={}) == {"hide", "skip"}
    assert Transformer.abilities(window=4) == {"hide"}


def test_rows_may_be_longer_than_the_context_unless_positions_are_learned():
    x = torch.randint(5, 40, (2, 2 * LENGTH))
    longer = make(BOTH, spec=Spec("text", (2 * LENGTH,), vocabulary=VOCABULARY))
    trunk = make(BOTH)
    with torch.inference_mode():
        trunk(x)
    assert torch.equal(trunk(x).tokens, longer(x).tokens)
    trunk(x).pooled.sum().backward()
    with pytest.raises(UserError, match=r"24 positions; backbone\.position=learned has 12"):
        make({})(x)


def test_weights_start_small_and_smaller_where_they_add_up():
    trunk = Transformer(SPEC, TextStem, width=128, depth=8, **BOTH)
    block = trunk.blocks[3]
    for weight, std in (
        (trunk.stem.embedding.weight, 0.02),
        (block.qkv.weight, 0.02),
        (block.mlp[0].weight, 0.02),
        (block.out.weight, 0.005),
        (block.mlp[2].weight, 0.005),
    ):
        assert weight.std().item() == pytest.approx(std, rel=0.1)


def test_blocks_with_zero_init_start_as_the_identity_and_learn():
    trunk = Transformer(SPEC, TextStem, zero_init=True, **CAUSAL)
    x, _ = rows()
    tokens = trunk(x).tokens
    torch.testing.assert_close(tokens, trunk.norm(trunk.stem(x)))
    tokens.square().sum().backward()
    assert all(layer.weight.grad.any() for block in trunk.blocks for layer in (block.out, block.mlp[2]))


def test_normalized_queries_and_keys_do_not_depend_on_the_scale_of_their_projection():
    for settings in (CAUSAL, CAUSAL | {"qk_norm": True}):
        trunk = make(settings)
        x, _ = rows()
        before = trunk(x).tokens
        with torch.no_grad():
            for block in trunk.blocks:
                block.qkv.weight[: 2 * 32] *= 3
        assert torch.allclose(trunk(x).tokens, before, atol=1e-4) == bool(settings.get("qk_norm"))


@pytest.mark.parametrize(("settings", "task"), [(BOTH, "masked_lm"), (CAUSAL, "causal_lm")])
def test_a_tied_head_shares_the_embedding_and_does_not_save_it_twice(settings: dict, task: str):
    trunk, other = make(settings), make(settings, seed=1)
    both = nn.ModuleDict({"backbone": trunk, "head": trunk.head(task, 40)})
    assert not [name for name in both["head"].state_dict() if both["head"].state_dict()[name].shape == (40, 32)]
    twin = copy.deepcopy(both)
    trunk.load_state_dict(other.state_dict())
    x, mask = rows()
    for pair, source in ((both, other), (twin, make(settings))):
        tokens = pair["backbone"](x, mask).tokens
        fresh = source.head(task, 40)
        fresh.load_state_dict(pair["head"].state_dict())
        assert torch.equal(pair["head"](tokens), fresh(source(x, mask).tokens))
    untied = make(settings | {"tied": False}).head(task, 40)
    assert [v for v in untied.state_dict().values() if v.shape == (40, 32)]


@pytest.mark.parametrize(
    "task", ["sequence_classification", "token_classification", "question_answering", "masked_lm", "causal_lm", "ctc"]
)
def test_heads_map_features_to_outputs_and_other_stems_have_linear_ones(task: str):
    outputs = 40 if task.endswith("_lm") else 3
    for settings in (BOTH, CAUSAL):
        assert make(settings).head(task, outputs)(torch.randn(5, 32)).shape == (5, outputs)
    vector = Transformer(Spec("vector", (6,)), FeatureStem, width=32)
    assert type(vector.head(task, 7)) is nn.Linear


@every
def test_models_can_be_computed_together(settings: dict):
    trunks = [make(settings, seed) for seed in (0, 1)]
    x, mask = rows()
    params, buffers = torch.func.stack_module_state(trunks)
    together = torch.vmap(lambda p, b: torch.func.functional_call(trunks[0], (p, b), (x, mask)).tokens)(params, buffers)
    for trunk, tokens in zip(trunks, together):
        torch.testing.assert_close(trunk(x, mask).tokens, tokens, atol=1e-5, rtol=1e-4)


@every
def test_half_precision_is_near(settings: dict):
    trunk = make(settings)
    x, mask = rows()
    with torch.autocast("cpu", torch.bfloat16):
        half = trunk(x, mask).tokens.float()
    assert (half - trunk(x, mask).tokens).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kv_heads": 3}, "heads=4 is not a multiple of backbone.kv_heads=3"),
        ({"position": "rotary", "width": 12}, "even head width"),
        ({"causal": True, "pooling": "cls"}, "use last"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        make(settings)


def test_recomputed_activations_give_the_same_gradients_with_dropout():
    x, mask = rows()
    found = []
    for checkpoint in (False, True):
        trunk = make(CAUSAL | {"dropout": 0.1, "checkpoint": checkpoint}).train()
        torch.manual_seed(0)
        trunk(x, mask).tokens.square().sum().backward()
        found.append({name: value.grad for name, value in trunk.named_parameters()})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
