"""What a config takes from other runs and models: the backbone of the weights it starts from, a run's experiment."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from warmstart.core.errors import UserError
from warmstart.core.reading import load_json
from warmstart.core.trust import check_targets
from warmstart.huggingface.files import CARD, HUB, folder_of
from warmstart.huggingface.resolve import TARGETS, node_of
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, Lacking, finished, latest, newest, runs_of

SHUFFLED, RANDOM = "shuffled:", "random:"  # before an `init`: its weights permuted inside each tensor, or drawn anew


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


# The stages whose runs a stage starts from, where its `run` names one.
NAMED = {
    "evaluate": TUNED,
    "predict": TUNED,
    "export": (*TUNED, "pretrain"),
    "generate": ("pretrain",),
}


def follow(config: DictConfig, lacking: Lacking = lambda record: []) -> DictConfig:
    """The config with the experiment of the run that `run` names: the newest that lacks no column, or a path's."""
    stages = NAMED.get(config.stage)
    if stages is None:
        return config
    found = Path(config.run)
    if config.run == "latest":
        output = Path(config.output_dir)
        names = [(stage, path.name) for stage in stages for path in (output / stage).glob("*")]
        runs = [run for name in names for run in runs_of(output, *name) if run.record["status"] == "done"]
        if not runs:
            return config
        found = newest(runs, lacking).path
    followed = config.copy()
    followed.experiment = finished(found).record.get("experiment", config.experiment)
    return followed


def named(config: DictConfig, run: RunFolder) -> DictConfig:
    """The config with this run as the one that `run` names, so that it means the same run when it is read again."""
    fixed = config.copy()
    fixed.run = str(run.path.resolve())
    return fixed
