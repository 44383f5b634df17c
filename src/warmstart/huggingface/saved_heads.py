"""Load Hugging Face models with the auto classes of transformers, and their trained heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from warmstart.core.errors import UserError
from warmstart.huggingface.configs import speech
from warmstart.huggingface.configs.text import is_causal
from warmstart.huggingface.files import CARD, stored_dtype
from warmstart.huggingface.heads import has_class, make_config
from warmstart.huggingface.weights import owned


def load(word: str, folder: Path, name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model with changed settings; return it and its loading info. For AutoTokenizer, return the tokenizer."""
    found = _load(word, folder, name, "float32", **changes)
    if name != "AutoTokenizer":
        for tensor, values in found[0].named_parameters():
            _check_finite(word, tensor, values)
    return found


def _load(word: str, folder: Path, name: str, dtype: str, **changes: Any) -> Any:
    """Load as `load` does, without a check of the values; in the dtype of the files, tensors are parts of them."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        if name != "AutoTokenizer":
            config = transformers.AutoConfig.from_pretrained(folder, **settings, **changes)
            config._attn_implementation = "eager"  # an argument does not override config.json
            settings |= {"config": config, "use_safetensors": True, "dtype": dtype}
            settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        found = getattr(transformers, name).from_pretrained(folder, **settings)
    except Exception as error:  # architectures raise many classes of errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"init={word}: {folder} cannot be loaded as {name}: {reason}") from error
    for tensor, there, here in sorted(found[1]["mismatched_keys"]) if name != "AutoTokenizer" else ():
        raise UserError(f"init={word}: {tensor} is {tuple(there)} in its weights but {tuple(here)} in its {CARD}")
    return found


def _check_finite(word: str, tensor: str, values: Tensor) -> None:
    """Raise UserError if weights are not finite."""
    if values.numel() and not torch.stack(values.aminmax()).isfinite().all():  # isfinite of all would take memory
        raise UserError(f"init={word}: its weights are not finite: {tensor}")


def load_decoder(
    word: str, folder: Path, architecture: dict[str, Any], dtype: str
) -> tuple[Any, set[str], dict[str, Tensor]] | None:
    """Load a causal language model once, with little more memory than its weights.

    Args:
        dtype: of its matrices: auto for bfloat16 if that is the dtype of the files, else float32.

    Returns:
        The model without head, the names of its missing tensors, and the trained head, which is empty if it is
        incomplete; None if the model without head has another class in AutoModel.
    """
    config = make_config(architecture)
    if not has_class("causal_lm", config) or type(config) not in transformers.MODEL_MAPPING:
        return None
    stored = stored_dtype(word, folder)
    model, found = _load(word, folder, "AutoModelForCausalLM", stored)
    prefix = f"{model.base_model_prefix}."
    if type(model.base_model) is not transformers.MODEL_MAPPING[type(config)]:
        return None
    chosen = stored if dtype == "auto" and stored == "bfloat16" else dtype
    for name, values in model.named_parameters():
        values.data = owned(values.data, chosen == "bfloat16")
        _check_finite(word, name, values)
    missing = {name.removeprefix(prefix) for name in found["missing_keys"] if name.startswith(prefix)}
    return model.base_model, missing, _trained_head(model, found)


AUTO = {  # suffix of a class of transformers -> auto class, task of the objective
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "sequence_classification"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "token_classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question_answering"),
    "ForImageClassification": ("AutoModelForImageClassification", "sequence_classification"),
}
SOUND = "AutoModelForAudioClassification"


def names_task(architecture: dict[str, Any]) -> bool:
    """Return whether the class of a model has the head of a task."""
    return str((architecture.get("architectures") or [""])[0]).endswith(tuple(AUTO))


def language_head(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """Return the trained language-model head; empty if it is incomplete."""
    name = "AutoModelForCausalLM" if is_causal(architecture) else "AutoModelForMaskedLM"
    return _trained_head(*load(word, folder, name))


def _trained_head(model: Any, found: dict[str, Any]) -> dict[str, Tensor]:
    """Return the head of a loaded language model; empty if it is incomplete."""
    shared = set(model.all_tied_weights_keys)
    if set(found["missing_keys"]) - shared:
        return {}
    trunk = f"{model.base_model_prefix}."
    state = model.state_dict().items()
    return {f"head.model.{n}": value for n, value in state if not n.startswith(trunk) and n not in shared}


def ctc_head(word: str, folder: Path, architecture: dict[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the trained CTC head, with the blank last, and its labels; empty if there is none."""
    if not any(str(name).endswith("ForCTC") for name in architecture.get("architectures") or ()):
        return {}, ()
    model, found = load(word, folder, "AutoModelForCTC", **speech.OFF)
    linear = {name: value for name, value in model.state_dict().items() if name.startswith("lm_head.")}
    rows, labels = speech.labels_of(word, folder, architecture, len(linear["lm_head.weight"]))
    if not rows or set(found["missing_keys"]) & set(linear):
        return {}, ()
    return {f"head.{name.removeprefix('lm_head.')}": value[rows] for name, value in linear.items()}, labels


def task_head(
    word: str, folder: Path, architecture: dict[str, Any], pooling: str | None = None, shape: tuple[int, ...] = ()
) -> tuple[str | None, dict[str, Tensor], tuple[str, ...]]:
    """Return the task that the model was finetuned for, its head, and its labels in alphabetical order.

    The task is None if the model has no trained head, and the head is empty if it is not supported.

    Args:
        pooling: pooling of an image model.
        shape: shape of an image.
    """
    name = str((architecture.get("architectures") or [""])[0])
    auto, task = next((found for end, found in AUTO.items() if name.endswith(end)), (None, None))
    if task is None:
        return None, {}, ()
    is_sound = speech.describes(architecture)
    model, found = load(word, folder, SOUND if is_sound else auto, **(speech.OFF if is_sound else {}))
    trunk, shared = f"{model.base_model_prefix}.", set(model.all_tied_weights_keys)
    state = {n: v for n, v in model.state_dict().items() if not n.startswith(trunk) and n not in shared}
    if not state or set(found["missing_keys"]) & set(state):
        return None, {}, ()
    labels = (
        () if task == "question_answering" else tuple(model.config.id2label[n] for n in range(model.config.num_labels))
    )
    order = sorted(range(len(labels)), key=labels.__getitem__)
    per_label = _sized_by_labels(model) if labels else set()
    state = {name: value[order] if name in per_label else value for name, value in state.items()}
    labels = tuple(labels[number] for number in order)
    if is_sound:
        return task, _one_linear(model, state), labels
    if shape:
        same_pooling = _pools(model, pooling, shape)
        linear = {f"head.{name.rpartition('.')[2]}": value for name, value in state.items() if name in per_label}
        return task, linear if same_pooling else {}, labels
    return task, {f"head.model.{name}": value for name, value in state.items()}, labels


def _sized_by_labels(model: Any) -> set[str]:
    """Return the names of the tensors whose first dimension is the number of labels."""
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        other = type(model)(config).state_dict()
    return {name for name, value in model.state_dict().items() if value.shape != other[name].shape}


def _one_linear(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge the two linear layers of an audio classifier; empty for other architectures."""
    names = {f"{layer}.{part}" for layer in ("projector", "classifier") for part in ("weight", "bias")}
    if set(state) != names or model.config.use_weighted_layer_sum:
        return {}
    weight = state["classifier.weight"]
    bias = weight @ state["projector.bias"] + state["classifier.bias"]
    return {"head.weight": weight @ state["projector.weight"], "head.bias": bias}


@torch.no_grad()
def _pools(model: Any, pooling: str | None, shape: tuple[int, ...]) -> bool:
    """Return whether an image classifier is a linear layer on the pooled features, tested on random images."""
    trunk = f"{model.base_model_prefix}."
    linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.startswith(trunk)]
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        found = model.eval().base_model(pixel_values=x)
        pooled = found.last_hidden_state[:, 0] if pooling == "cls" else found.pooler_output.flatten(1)
        return len(linear) == 1 and torch.allclose(linear[0](pooled), model(pixel_values=x).logits, atol=1e-4)
    except (AttributeError, TypeError, ValueError, RuntimeError):  # it has no such output
        return False
