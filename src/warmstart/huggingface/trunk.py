"""Assemble models of transformers from a backbone and a head, for export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.huggingface.configs.text import is_causal
from warmstart.huggingface.heads import LANGUAGE, Head, make_config, make_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def assemble(
    task: str | None, head: nn.Module | None, architecture: dict[str, Any], trunk: PreTrainedModel, spec: Spec
) -> PreTrainedModel:
    """Return a model of transformers with the weights of backbone and head, on the CPU and in evaluation mode.

    Raises:
        UserError: transformers has no equivalent head.
    """
    config = make_config(architecture)
    if task is None:
        model = make_model(None, config)
        if getattr(trunk, "pooler", None) is None and getattr(model, "pooler", None) is not None:
            model.pooler = None
        model.load_state_dict(trunk.state_dict())
        if spec.vocabulary is not None:
            _set_padding(model, spec.vocabulary, False)
        return model.cpu().eval()
    if not isinstance(head, Head):
        hint = (
            "use backbone.pooling=cls (encoders) or last (decoders), or " if task == "sequence_classification" else ""
        )
        raise UserError(
            f"transformers has no {config.model_type} for {task} with an equivalent head: "
            f"{hint}choose another model to export"
        )
    if task not in LANGUAGE:
        config.num_labels = head.outputs
    if task in ("sequence_classification", "token_classification") and len(spec.labels) == head.outputs:
        config.id2label = dict(enumerate(spec.labels))
        config.label2id = {label: number for number, label in enumerate(spec.labels)}
    model = make_model(task, config)
    own = {f"{model.base_model_prefix}.{name}": value for name, value in trunk.state_dict().items()}
    kept = set(model.state_dict())
    state = {name: value for name, value in {**own, **head.model.state_dict()}.items() if name in kept}
    missing = kept - set(state) - set(model.all_tied_weights_keys)
    if missing:
        raise RuntimeError(f"no weights for {sorted(missing)}")
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    if spec.center and task == "sequence_classification":
        _restore_units(model, spec)
    if spec.vocabulary is not None:
        _set_padding(model, spec.vocabulary, is_causal(architecture) and task == "sequence_classification")
    return model.cpu().eval()


def _set_padding(model: PreTrainedModel, vocabulary: Vocabulary, finds_last: bool) -> None:
    """Set the padding id; a model that pools the last token that is not padding needs one that no token has."""
    config = model.config.get_text_config()
    if finds_last and not vocabulary.only_pads:
        config.pad_token_id = vocabulary.size
        rows = model.get_input_embeddings().weight.shape[0]
        if vocabulary.size >= rows:
            model.resize_token_embeddings(vocabulary.size + 1, mean_resizing=False)
            with torch.no_grad():
                model.get_input_embeddings().weight[rows:] = 0
    elif finds_last or config.pad_token_id is None:
        config.pad_token_id = vocabulary.padding


@torch.no_grad()
def _restore_units(model: PreTrainedModel, spec: Spec) -> None:
    """Scale the last layer to the units of the regression targets.

    Raises:
        UserError: it is not a linear layer with a bias.
    """
    trunk = set(model.base_model.modules())
    own = [module for module in model.modules() if module not in trunk and isinstance(module, nn.Linear)]
    last = [linear for linear in own if linear.out_features == len(spec.center)]
    if len(last) != 1 or last[0].bias is None:
        raise UserError(
            f"{type(model).__name__} of transformers cannot scale outputs to the units of a regression: not exported"
        )
    spread = torch.tensor(spec.spread)
    last[0].weight.mul_(spread[:, None])
    last[0].bias.mul_(spread).add_(torch.tensor(spec.center))
    model.config.problem_type = "regression"


def depths_by_layer(backbone: nn.Module, layers: str | None = None) -> dict[str, int]:
    """Return depth 0 for everything before the layers, one depth per layer, then the rest.

    Args:
        layers: name of the list of layers; None for the longest ModuleList.
    """
    lists = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    layers = layers or max(outer, key=lambda name: len(lists[name]), default="")
    depths: dict[str, int] = {}
    depth = 0
    for name, _ in backbone.named_parameters():
        if layers and name.startswith(f"{layers}."):
            index = int(name.removeprefix(f"{layers}.").split(".")[0])
            depths[f"{layers}.{index}"] = index + 1
            depth = len(lists[layers]) + 1
        else:
            outer_name = _outside(name, layers)
            inner = backbone.get_submodule(outer_name).modules() if outer_name != name else ()
            depths[outer_name] = 0 if any(isinstance(module, nn.Embedding) for module in inner) else depth
    return depths


def _outside(name: str, layers: str) -> str:
    """Return the outermost module that has the parameter but not the layers; the parameter itself if there is none."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((prefix for prefix in prefixes if not f"{layers}.".startswith(f"{prefix}.")), name)


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Recompute the activations of each layer in the backward pass of a training.

    Raises:
        UserError: transformers does not support it for this architecture.
    """
    try:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(f"backbone.checkpoint=true: a {model.config.model_type} does not support it") from error
