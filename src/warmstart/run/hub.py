"""A Hugging Face model as a start, `init=hf:NAME_OR_DIR`: what the config must know. None of its code is executed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from warmstart.contracts import UserError
from warmstart.reading import load_json
from warmstart.run import hub_images, hub_speech, hub_texts
from warmstart.run.hub_folder import CARD, HUB, folder_of, read_json, tensor_names
from warmstart.run.lineage import Lacking, latest
from warmstart.run.trust import check_targets

SHUFFLED, RANDOM = "shuffled:", "random:"  # before an `init`: its weights permuted inside each tensor, or drawn anew
TARGETS = {  # and what chooses them
    hub_texts.TARGET: "huggingface",
    hub_images.TARGET: "huggingface_images",
    hub_speech.TARGET: "huggingface_speech",
}
CODED = (CARD, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
OWN = (None, "eager", "sdpa", "flash_attention_2", "grouped_mm", "batched_mm")  # what is not fetched from the hub


def adopt(config: DictConfig, lacking: Lacking = lambda record: []) -> DictConfig:
    """The config with the backbone of the model that `init=hf:` names, its architecture written out.

    So is that of a run that was itself pretrained from such a model. A config with any other `init` is returned as it
    is. `backbone.pooling` is kept where it is set; else it is what the folder says (sentence-transformers), else the
    last token for a decoder and the first for an encoder, or what a model of images without a first token has.

    Args:
        config: composed.
        lacking: the columns that a run with a record needs and this config's data lacks, for init=latest.

    Raises:
        UserError: there is no such model, or it is none that can be used without running code of its own.
    """
    init = str(config.get("init") or "")
    if "pretrain" in config:
        if HUB in init:
            raise UserError(f"init={init}: say it of an arm, arm.NAME.init={init}, or of pretrain.init")
        node = adopt(config.pretrain, lacking).backbone
        return config if node is config.pretrain.backbone else _with(config, backbone=node, pretrain={"backbone": node})
    word = init.removeprefix(SHUFFLED).removeprefix(RANDOM)
    if init.startswith(RANDOM) and not word.startswith(HUB):
        raise UserError(f"init={init}: {RANDOM} goes before {HUB}NAME_OR_DIR")
    if word.startswith(HUB):
        return _with(config, backbone=node_of(word, folder_of(word), OmegaConf.select(config, "backbone.pooling")))
    backbone = config.get("backbone") or {}
    target = backbone.get("_target_")
    if word in ("", "scratch") and target in TARGETS and backbone.get("architecture") is None:
        raise UserError(f"backbone={TARGETS[target]} needs init={HUB}NAME_OR_DIR")
    node = _saved_node(config, word, lacking)
    return config if node is None else _with(config, backbone=node)


def _with(config: DictConfig, **parts: Any) -> DictConfig:
    adopted = copy.deepcopy(config)
    with open_dict(adopted):
        adopted.backbone = parts["backbone"]
        if "pretrain" in parts:
            adopted.pretrain.backbone = parts["backbone"]
    return adopted


def _saved_node(config: DictConfig, word: str, lacking: Lacking) -> dict[str, Any] | None:
    """The node of a Hugging Face backbone that a run of ours was pretrained from; None for any other start."""
    if config.get("stage") not in ("pretrain", "finetune") or word in ("", "scratch"):
        return None
    try:
        path = Path(word)
        if word == "latest":
            path = latest(Path(config.output_dir), "pretrain", config.experiment, lacking).path
        card = next(place for place in (path / "model" / CARD, path / CARD) if place.is_file())
        node = load_json(card)["backbone"]
        if node["_target_"] not in TARGETS:
            return None
    except (UserError, StopIteration, OSError, ValueError, KeyError, TypeError):
        return None  # whoever opens it says what is wrong
    check_targets({"backbone": node}, card)
    return node


def node_of(word: str, folder: Path, pooling: str | None) -> dict[str, Any]:
    """The backbone's config node; whatever cannot be used is refused here."""
    architecture = read_json(word, folder / CARD)
    if "warmstart" in architecture:
        raise UserError(f"init={word}: this is a saved backbone of ours: give init={folder}, without {HUB}")
    if _needs_kernel(architecture):
        raise UserError(
            f"init={word}: the model asks for a kernel from the hub, which is code and so not allowed: "
            f"take attn_implementation and use_kernels out of its {CARD}"
        )
    for path in (folder / name for name in CODED if (folder / name).exists()):
        if "auto_map" in read_json(word, path):
            what = f"code of its own (auto_map in its {'config' if path.name == CARD else path.name})"
            raise UserError(f"init={word}: the model runs {what}, which is not allowed")
    if "quantization_config" in architecture or (folder / "adapter_config.json").exists():
        raise UserError(f"init={word}: give the whole model in full precision, not a quantised one or an adapter")
    kind = next((kind for kind in (hub_images, hub_speech) if kind.describes(architecture)), hub_texts)
    node = kind.node_of(word, folder, architecture, tensor_names(word, folder), pooling)
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
