"""Export low-rank adapters of a Hugging Face model for peft."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.huggingface.files import CARD, folder_of
from warmstart.huggingface.saved_heads import load

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRUNK = "model."  # prefix of the layers of transformers in a backbone
AUTO = "AutoModelForCausalLM"


def save_adapter(folder: Path, word: str, model: PreTrainedModel, deltas: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the low-rank updates of a model's layers, and its head if it was trained, as an adapter of peft.

    Args:
        folder: existing folder.
        word: the model without adapters, with the prefix hf:.
        model: the causal language model with the adapters merged and its head.
        deltas: `up` (O, R) and `down` (R, I), with DoRA also `magnitude` (O, 1), by layer of the backbone; (I, R),
            (R, O) and (1, O) if the weight is (I, O).

    Raises:
        UserError: the model is no causal language model, or an adapter has another form.
    """
    import peft

    if not model.can_generate():
        raise UserError(f"format=peft is for language models, not for {type(model).__name__}: use format=hf")
    if any(set(delta) - {"magnitude"} != {"up", "down"} for delta in deltas.values()):
        raise UserError("format=peft is for strategy=lora: use format=hf")
    base, _ = load(word, folder_of(word), AUTO)
    layers = {f"{base.base_model_prefix}.{name.removeprefix(TRUNK)}": delta for name, delta in deltas.items()}
    first = next(iter(layers.values()))
    rank = first["up"].shape[1]
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,  # the scale is in `up`
        use_dora="magnitude" in first,
        target_modules=target_modules(base, layers),
        modules_to_save=changed_modules(base, model) or None,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # peft then sets the correct value
        wrapped = peft.get_peft_model(base, settings)
    for name, delta in layers.items():
        _set(base.get_submodule(name), **delta)
    own = model.state_dict()
    for name in settings.modules_to_save or ():
        module = base.get_submodule(name).modules_to_save["default"]
        module.load_state_dict({key: own[f"{name}.{key}"] for key in module.state_dict()})
    settings.base_model_name_or_path = Init.parse(word).path
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card


def load_adapter(folder: Path, word: str) -> nn.Module:
    """Return a Hugging Face model with the adapter of a folder, loaded by peft."""
    import peft

    return peft.PeftModel.from_pretrained(load(word, folder_of(word), AUTO)[0], folder)


@contextlib.contextmanager
def written_config(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Write the config.json of a model, from which a preprocessor takes the padding id, inside the context."""
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    yield
    (folder / CARD).unlink()


def target_modules(model: PreTrainedModel, names: Iterable[str]) -> list[str]:
    """Return the last parts of the layers' names if no other layer has them, as is usual in peft; else the names."""
    ends = {name.rpartition(".")[2] for name in names}
    same = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    return sorted(ends if same == set(names) else names)


def changed_modules(base: PreTrainedModel, model: PreTrainedModel) -> list[str]:
    """Return the modules of the head whose parameters differ from those of the base model."""
    own, prefix = dict(model.named_parameters()), f"{base.base_model_prefix}."
    found = [name for name, value in base.named_parameters() if not torch.equal(value, own[name])]
    return sorted({name.rpartition(".")[0] for name in found if not name.startswith(prefix)})


@torch.no_grad()
def _set(layer: Any, up: Tensor, down: Tensor, magnitude: Tensor | None = None) -> None:
    """Set the weights of the adapter of a layer."""
    if magnitude is not None:
        layer.lora_magnitude_vector["default"].weight.copy_(magnitude.flatten())
    if not isinstance(layer.get_base_layer(), nn.Linear):  # its weight is (I, O)
        up, down = down.T, up.T
    layer.lora_A["default"].weight.copy_(down)
    layer.lora_B["default"].weight.copy_(up)
