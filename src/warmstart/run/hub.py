"""A Hugging Face model as a start, `init=hf:NAME_OR_DIR`: what the config must know. None of its code is executed."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from warmstart.contracts import UserError
from warmstart.run.folder import check_targets
from warmstart.run.lineage import latest

HUB = "hf:"
SHUFFLED, RANDOM = "shuffled:", "random:"  # before an `init`: its weights permuted inside each tensor, or drawn anew
TARGET = "warmstart.backbone.huggingface.HuggingFace"
CARD, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
WANTED = ("*.json", WEIGHTS, "model-*-of-*.safetensors", "*.txt", "*.model")  # of a model on the hub
OWN = (None, "eager", "sdpa", "flash_attention_2", "grouped_mm", "batched_mm")  # what is not fetched from the hub
POOLINGS = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}


def adopt(config: DictConfig) -> DictConfig:
    """The config with the backbone of the model that `init=hf:` names, its architecture written out.

    So is that of a run that was itself pretrained from such a model. A config with any other `init` is returned as it
    is. `backbone.pooling` is kept where it is set; else it is what the folder says (sentence-transformers), else the
    last token for a decoder and the first for an encoder.

    Raises:
        UserError: there is no such model, or it is none that can be used without running code of its own.
    """
    init = str(config.get("init") or "")
    if "pretrain" in config:
        if HUB in init:
            raise UserError(f"init={init}: say it of an arm, arm.NAME.init={init}, or of pretrain.init")
        node = adopt(config.pretrain).backbone
        return config if node is config.pretrain.backbone else _with(config, backbone=node, pretrain={"backbone": node})
    word = init.removeprefix(SHUFFLED).removeprefix(RANDOM)
    if init.startswith(RANDOM) and not word.startswith(HUB):
        raise UserError(f"init={init}: {RANDOM} goes before {HUB}NAME_OR_DIR")
    if word.startswith(HUB):
        return _with(config, backbone=node_of(word, folder_of(word), OmegaConf.select(config, "backbone.pooling")))
    backbone = config.get("backbone") or {}
    if word in ("", "scratch") and backbone.get("_target_") == TARGET and backbone.get("architecture") is None:
        raise UserError(f"backbone=huggingface needs init={HUB}NAME_OR_DIR")
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
        if node["_target_"] != TARGET:
            return None
    except (UserError, StopIteration, OSError, ValueError, KeyError, TypeError):
        return None  # whoever opens it says what is wrong
    check_targets({"backbone": node}, card)
    return node


def folder_of(word: str) -> Path:
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


def node_of(word: str, folder: Path, pooling: str | None) -> dict[str, Any]:
    """The backbone's config node; whatever cannot be used is refused here, what needs torch last."""
    architecture = _read(word, folder / CARD)
    if "warmstart" in architecture:
        raise UserError(f"init={word}: this is a saved backbone of ours: give init={folder}, without {HUB}")
    if _needs_kernel(architecture):
        raise UserError(
            f"init={word}: the model asks for a kernel from the hub, which is code and so not allowed: "
            f"take attn_implementation and use_kernels out of its {CARD}"
        )
    tokenizer = folder / "tokenizer_config.json"
    if "auto_map" in {**architecture, **(_read(word, tokenizer) if tokenizer.exists() else {})}:
        raise UserError(f"init={word}: the model runs code of its own (auto_map in its config), which is not allowed")
    if "quantization_config" in architecture or (folder / "adapter_config.json").exists():
        raise UserError(f"init={word}: give the whole model in full precision, not a quantised one or an adapter")
    names = _tensor_names(word, folder)
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZERS):
        raise UserError(f"init={word}: {folder} has no tokenizer: put the model's tokenizer.json there")
    is_decoder = decodes(word, architecture)
    pooling = pooling or _pooling(word, folder) or ("last" if is_decoder else "cls")
    pooler = pooling == "cls" and any(".pooler." in f".{name}" for name in names)
    node = {"_target_": TARGET, "pooling": pooling, "pooler": pooler, "architecture": architecture}
    try:
        check_targets({"backbone": node}, folder / CARD)
    except UserError as error:
        raise UserError(f"init={word}: {error}") from error
    return node


def _needs_kernel(node: Any) -> bool:
    """Whether a configuration, or one inside it, names an implementation that is fetched as code."""
    if not isinstance(node, dict):
        return False
    chosen = [node.get(f"{start}{kind}_implementation") for start in ("", "_") for kind in ("attn", "experts")]
    is_asked = node.get("use_kernels") or any(name not in OWN for name in chosen)
    return bool(is_asked) or any(_needs_kernel(value) for value in node.values())


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
    lacking = [name for name in shard_names(word, folder) if not (folder / name).exists()]
    if lacking:
        raise UserError(f"init={word}: {folder} lacks {lacking[0]}, which its {SHARDS} names")
    return list(_read(word, folder / SHARDS)["weight_map"])


def shard_names(word: str, folder: Path) -> list[str]:
    """The files that the weights are spread over."""
    places = _read(word, folder / SHARDS).get("weight_map")
    if not isinstance(places, dict):
        raise UserError(f"init={word}: {folder / SHARDS} is damaged: it has no weight_map")
    return sorted(set(places.values()))


def decodes(word: str, architecture: dict[str, Any]) -> bool:
    """Whether the model predicts what comes next, rather than what is hidden.

    Raises:
        UserError: it is no text model that does one of these.
    """
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
