"""Hugging Face models as a start: `init=hf:NAME_OR_DIR`. Nothing that comes with a model is executed."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from warmstart.contracts import Spec, UserError, Vocabulary
from warmstart.run.identity import file_sha256
from warmstart.run.lineage import latest

if TYPE_CHECKING:
    from torch import Tensor

    from warmstart.run.saved import SavedModel

HUB = "hf:"
SHUFFLED, RANDOM = "shuffled:", "random:"  # before an `init`: its weights permuted inside each tensor, or drawn anew
TARGET = "warmstart.backbone.huggingface.HuggingFace"
CARD, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
WANTED = ("*.json", WEIGHTS, "model-*-of-*.safetensors", "*.txt", "*.model")  # of a model on the hub
POOLINGS = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}


def adopt(config: DictConfig) -> DictConfig:
    """The config with the backbone of the model that `init=hf:` names, its architecture written out.

    So is that of a run that was itself pretrained from such a model. A config with any other `init` is returned as it
    is. `backbone.pooling` is kept where it is set; else it is what the folder says (sentence-transformers), else the
    last token for a decoder and the first for an encoder.

    Raises:
        UserError: there is no such model, or it is none that can be used without running code of its own.
    """
    if "pretrain" in config:
        node = adopt(config.pretrain).backbone
        return config if node is config.pretrain.backbone else _with(config, backbone=node, pretrain={"backbone": node})
    word = str(config.get("init") or "").removeprefix(SHUFFLED).removeprefix(RANDOM)
    if word.startswith(HUB):
        return _with(config, backbone=_node(word, _folder(word), OmegaConf.select(config, "backbone.pooling")))
    node = _saved_node(config, word)
    return config if node is None else _with(config, backbone=node)


def _with(config: DictConfig, **parts: Any) -> DictConfig:
    adopted = copy.deepcopy(config)
    with open_dict(adopted):
        adopted.backbone = parts["backbone"]
        if "pretrain" in parts:
            adopted.pretrain.backbone = parts["backbone"]
    return adopted


def _saved_node(config: DictConfig, word: str) -> dict[str, Any] | None:
    """The node of a Hugging Face backbone that a run of ours was pretrained from; None for any other start."""
    if config.get("stage") not in ("pretrain", "finetune") or word in ("", "scratch"):
        return None
    try:
        path = latest(Path(config.output_dir), "pretrain", config.experiment).path if word == "latest" else Path(word)
        card = next(place for place in (path / "model" / CARD, path / CARD) if place.is_file())
        node = json.loads(card.read_text())["backbone"]
        return node if node["_target_"] == TARGET else None
    except (UserError, StopIteration, OSError, ValueError, KeyError, TypeError):
        return None  # whoever opens it says what is wrong


def open_hub(word: str, pooling: str | None = None) -> SavedModel:
    """A Hugging Face model as a saved backbone: weights in float32, its head for tokens if trained, its tokenizer.

    Args:
        word: hf:NAME_OR_DIR.
        pooling: that of the config, where it is not what `adopt` chooses.

    Raises:
        UserError: it is none that can be used, is damaged, or its tokenizer is another model's.
    """
    from warmstart.run.saved import SavedModel, spec_record

    folder = _folder(word)
    node = _node(word, folder, pooling)
    model, found = _load(word, folder, "AutoModel")
    weights = {
        f"model.{name}": value
        for name, value in model.state_dict().items()
        if name not in found["missing_keys"] and (node["pooler"] or not name.startswith("pooler."))
    }
    head = _language_head(word, folder, node["architecture"]) if found["unexpected_keys"] else {}
    most = getattr(model.config, "max_position_embeddings", None) or 0
    preprocessor, spec = _tokenizer(word, folder, len(model.get_input_embeddings().weight), most)
    card = {"stage": "hf", "backbone": node, "spec": spec_record(spec)}
    return SavedModel(folder, card, spec, _sha256(folder), weights, head, preprocessor)


def _folder(word: str) -> Path:
    """The folder that the word names, or that of the hub's model in the local cache, downloaded if need be."""
    name = word.removeprefix(HUB)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise UserError(f"init={word}: there is no such folder; give a model's folder or its name on the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"init={word}: there is no such folder, and no such model can be had from the Hugging Face hub "
            f"({type(error).__name__}): check the name and the connection, or give a folder"
        ) from error


def _node(word: str, folder: Path, pooling: str | None) -> dict[str, Any]:
    """The backbone's config node; whatever cannot be used is refused here, what needs torch last."""
    architecture = _read(word, folder / CARD)
    tokenizer = folder / "tokenizer_config.json"
    if "auto_map" in {**architecture, **(_read(word, tokenizer) if tokenizer.exists() else {})}:
        raise UserError(f"init={word}: the model runs code of its own (auto_map in its config), which is not allowed")
    if "quantization_config" in architecture or (folder / "adapter_config.json").exists():
        raise UserError(f"init={word}: give the whole model in full precision, not a quantised one or an adapter")
    names = _tensor_names(word, folder)
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: put the model's tokenizer.json there")
    is_decoder = _is_decoder(word, architecture)
    pooling = pooling or _pooling(word, folder) or ("last" if is_decoder else "cls")
    pooler = pooling == "cls" and any(".pooler." in f".{name}" for name in names)
    return {"_target_": TARGET, "pooling": pooling, "pooler": pooler, "architecture": architecture}


def _read(word: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"init={word}: {path.parent} has no {path.name}: it is not a Hugging Face model") from error
    except (ValueError, OSError) as error:
        raise UserError(f"init={word}: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"init={word}: {path} is damaged: it holds no settings")
    return content


def _tensor_names(word: str, folder: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    if (folder / WEIGHTS).exists():
        try:
            with safe_open(folder / WEIGHTS, "numpy") as tensors:
                return list(tensors.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"init={word}: {folder / WEIGHTS} is truncated or damaged: {error}") from error
    if not (folder / SHARDS).exists():
        raise UserError(
            f"init={word}: {folder} has no {WEIGHTS}, and weights in pickle files are not read, as they can run code: "
            "save the model again with save_pretrained"
        )
    lacking = [name for name in _shards(word, folder) if not (folder / name).exists()]
    if lacking:
        raise UserError(f"init={word}: {folder} lacks {lacking[0]}, which its {SHARDS} names")
    return list(_read(word, folder / SHARDS)["weight_map"])


def _shards(word: str, folder: Path) -> list[str]:
    places = _read(word, folder / SHARDS).get("weight_map")
    if not isinstance(places, dict):
        raise UserError(f"init={word}: {folder / SHARDS} is damaged: it has no weight_map")
    return sorted(set(places.values()))


def _sha256(folder: Path) -> str:
    """Of the weights' file, or of the digests of its shards, in order."""
    if (folder / WEIGHTS).exists():
        return file_sha256(folder / WEIGHTS)
    digests = [file_sha256(folder / name) for name in _shards("", folder)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_decoder(word: str, architecture: dict[str, Any]) -> bool:
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    causal = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if not (causal or masked) or architecture.get("is_encoder_decoder"):
        raise UserError(f"init={word}: transformers knows no encoder or decoder of texts with model_type={kind}")
    return bool(architecture.get("is_decoder")) or not masked


def _pooling(word: str, folder: Path) -> str | None:
    """How sentence-transformers pools this model, if it says so."""
    path = folder / "1_Pooling" / CARD
    settings = _read(word, path) if path.exists() else {}
    modes = [key.removeprefix("pooling_mode_") for key, value in settings.items() if value is True]
    return next((POOLINGS[mode] for mode in [settings.get("pooling_mode"), *modes] if mode in POOLINGS), None)


def _load(word: str, folder: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """A model by an auto class of transformers, and what was missing from its file or unexpected in it."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = {"trust_remote_code": False, "local_files_only": True}
    if name != "AutoTokenizer":
        settings |= {"use_safetensors": True, "dtype": "float32", "attn_implementation": "eager"}
        settings["output_loading_info"] = True
    try:
        return getattr(transformers, name).from_pretrained(folder, **settings)
    except Exception as error:  # of every kind, by architecture
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"init={word}: {folder} cannot be loaded as {name}: {reason}") from error


def _language_head(word: str, folder: Path, architecture: dict[str, Any]) -> dict[str, Tensor]:
    """The trained head that predicts tokens, as an objective names it; empty if the file has not all of it."""
    name = "AutoModelForCausalLM" if _is_decoder(word, architecture) else "AutoModelForMaskedLM"
    model, found = _load(word, folder, name)
    shared = set(model.all_tied_weights_keys)
    if set(found["missing_keys"]) - shared:
        return {}
    trunk = f"{model.base_model_prefix}."
    state = model.state_dict().items()
    return {f"head.model.{n}": value for n, value in state if not n.startswith(trunk) and n not in shared}


def _tokenizer(word: str, folder: Path, rows: int, most: int) -> tuple[dict[str, Any], Spec]:
    """The state of a preprocessor with the model's tokenizer, and what its examples look like.

    Args:
        word: hf:NAME_OR_DIR.
        folder: the model's.
        rows: of the embedding.
        most: positions that the model has, 0 or less if it does not say.
    """
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
