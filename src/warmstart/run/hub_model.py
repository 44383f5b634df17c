"""The weights, the head and the preprocessor of a Hugging Face model, as those of a saved backbone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from torch import Tensor

from warmstart import screen
from warmstart.contracts import Spec, UserError, Vocabulary
from warmstart.run import hub_images, hub_speech
from warmstart.run.hub import node_of
from warmstart.run.hub_folder import CARD, WEIGHTS, folder_of, shard_names
from warmstart.run.hub_texts import decodes
from warmstart.run.identity import file_sha256
from warmstart.run.saved import SavedModel, spec_record


def open_hub(word: str, pooling: str | None = None) -> SavedModel:
    """A Hugging Face model as a saved backbone: weights in float32, its preprocessor, its trained head if it is taken.

    Args:
        word: hf:NAME_OR_DIR.
        pooling: that of the config, where it is not what `adopt` chooses.

    Raises:
        UserError: it is none that can be used, is damaged, or its preprocessor is another model's.
    """
    folder = folder_of(word)
    node = node_of(word, folder, pooling)
    architecture = node["architecture"]
    changes = hub_speech.OFF if hub_speech.describes(architecture) else {}
    model, found = _load(word, folder, "AutoModel", **changes)
    has_pooler = node.get("pooler", node.get("pooling") == "pooler")
    weights = {
        f"model.{name}": value
        for name, value in model.state_dict().items()
        if name not in found["missing_keys"] and (has_pooler or not name.startswith("pooler."))
    }
    head = {}
    if hub_images.describes(architecture):
        preprocessor = hub_images.preprocessor_of(word, folder, architecture)
        spec = Spec("image", tuple(preprocessor["shape"]))
    elif changes:
        preprocessor = hub_speech.preprocessor_of(word, folder, architecture)
        head, labels = _ctc_head(word, folder, architecture)
        spec = Spec("speech", (preprocessor["rate"],), labels)
    else:
        if found["unexpected_keys"]:
            head = _language_head(word, folder, architecture)
        most = getattr(model.config, "max_position_embeddings", None) or 0
        rows = len(model.get_input_embeddings().weight)
        preprocessor, spec = _tokenizer(word, folder, architecture, rows, most)
    card = {"stage": "hf", "backbone": node, "spec": spec_record(spec)}
    return SavedModel(folder, card, spec, _sha256(folder), weights, head, preprocessor)


def _load(word: str, folder: Path, name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """A model by an auto class of transformers, its settings changed, and what its file lacked or had besides."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        if name != "AutoTokenizer":
            config = transformers.AutoConfig.from_pretrained(folder, **settings, **changes)
            config._attn_implementation = "eager"  # which an argument does not bring about where config.json says other
            settings |= {"config": config, "use_safetensors": True, "dtype": "float32"}
            settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        found = getattr(transformers, name).from_pretrained(folder, **settings)
    except Exception as error:  # of every kind, by architecture
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"init={word}: {folder} cannot be loaded as {name}: {reason}") from error
    if name != "AutoTokenizer":
        _check_values(word, *found)
    return found


def _check_values(word: str, model: Any, found: dict[str, Any]) -> None:
    """Refuse weights of another shape than the architecture's, and values that are not finite."""
    for tensor, there, here in sorted(found["mismatched_keys"]):
        raise UserError(f"init={word}: {tensor} is {tuple(there)} in its weights and {tuple(here)} by its {CARD}")
    for tensor, values in model.named_parameters():
        if not values.isfinite().all():
            raise UserError(f"init={word}: its weights hold values that are no numbers: {tensor}")


def _language_head(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """The trained head that predicts tokens, as an objective names it; empty if the file has not all of it."""
    name = "AutoModelForCausalLM" if decodes(word, architecture) else "AutoModelForMaskedLM"
    model, found = _load(word, folder, name)
    shared = set(model.all_tied_weights_keys)
    if set(found["missing_keys"]) - shared:
        return {}
    trunk = f"{model.base_model_prefix}."
    state = model.state_dict().items()
    return {f"head.model.{n}": value for n, value in state if not n.startswith(trunk) and n not in shared}


def _ctc_head(word: str, folder: Path, architecture: dict[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The trained head that says labels, the blank last, and these; empty if the folder has none."""
    if not any(str(name).endswith("ForCTC") for name in architecture.get("architectures") or ()):
        return {}, ()
    model, found = _load(word, folder, "AutoModelForCTC", **hub_speech.OFF)
    linear = {name: value for name, value in model.state_dict().items() if name.startswith("lm_head.")}
    rows, labels = hub_speech.labels_of(word, folder, architecture, len(linear["lm_head.weight"]))
    if not rows or set(found["missing_keys"]) & set(linear):
        return {}, ()
    return {f"head.{name.removeprefix('lm_head.')}": value[rows] for name, value in linear.items()}, labels


def _tokenizer(
    word: str, folder: Path, architecture: dict[str, Any], rows: int, most: int
) -> tuple[dict[str, Any], Spec]:
    """The state of a preprocessor with the model's tokenizer, and what its examples look like.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        architecture: its config.json.
        rows: of the embedding.
        most: positions that the model has, 0 or less if it does not say.
    """
    if (path := folder / "tokenizer.json").exists():
        try:
            Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers knows no other
            raise UserError(f"init={word}: {path} is damaged: {error}") from error
    tokenizer = _load(word, folder, "AutoTokenizer")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"init={word}: no tokenizer.json can be made of the files in {folder}: put one there")
    numbers = tokenizer.get_vocab()
    size = 1 + max(numbers.values())
    if size > rows:
        raise UserError(
            f"init={word}: the tokenizer has {size:,} tokens and the model's embedding {rows:,} rows: "
            "the tokenizer is another model's"
        )
    named = tokenizer.special_tokens_map
    doubts = [f"{size:,} tokens for {rows:,} rows of the embedding"] if 2 * size < rows else []
    for role in ("pad", "bos", "eos", "cls", "sep", "mask"):
        here, there = numbers.get(named.get(f"{role}_token")), architecture.get(f"{role}_token_id")
        if None not in (here, there) and here not in (there if isinstance(there, list) else [there]):
            doubts.append(f"{role}_token_id={here} where {CARD} says {there}")
    if doubts:
        doubt = f"warning: init={word}: the tokenizer may be another model's: it has {', '.join(doubts)}"
        screen.say(doubt, style="yellow")
    first, last = ("cls_token", "bos_token"), ("sep_token", "eos_token")
    roles = {
        "padding": named.get("pad_token"),
        "unknown": named.get("unk_token"),
        "begin": next((named[key] for key in first if key in named), None),
        "end": next((named[key] for key in last if key in named), None),
        "mask": named.get("mask_token"),
    }
    known = {role: numbers.get(token) for role, token in roles.items()}
    known["padding"] = next((known[role] for role in ("padding", "end") if known[role] is not None), 0)
    vocabulary = Vocabulary(size=size, special=tuple(sorted(tokenizer.all_special_ids)), **known)
    context = min(tokenizer.model_max_length, most if most > 0 else 512)
    serial = tokenizer.backend_tokenizer.to_str()
    state = {
        "kind": "text",
        "model": json.loads(serial)["model"]["type"].lower(),
        "vocabulary": size,
        "context": context,
        "tokenizer": serial,
        "roles": roles,
    }
    return state, Spec("text", (context,), vocabulary=vocabulary)


def _sha256(folder: Path) -> str:
    """Of the weights' file, or of the digests of its shards, in order."""
    if (folder / WEIGHTS).exists():
        return file_sha256(folder / WEIGHTS)
    digests = [file_sha256(folder / name) for name in shard_names("", folder)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
