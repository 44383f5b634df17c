"""What a config takes from other runs and models: the backbone of the weights it starts from, a run's experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.core.reading import load_json
from warmstart.core.trust import check_targets
from warmstart.huggingface.files import CARD, folder_of
from warmstart.huggingface.resolve import TARGETS, node_of
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, Lacking, finished, latest, newest, runs_of


def adopt(config: DictConfig) -> DictConfig:
    """The config with the backbone of the model that `init=hf:` names, its architecture written out.

    So is that of a run that was itself pretrained from such a model. A config with any other `init` is returned as it
    is. `backbone.pooling` is kept where it is set; else it is what the folder says (sentence-transformers), else the
    last token for a decoder and the first for an encoder, or what a model of images without a first token has.

    Raises:
        UserError: there is no such model, or it is none that can be used without running code of its own.
    """
    init = Init.parse(str(config.get("init") or "scratch"))
    if "pretrain" in config:
        if init.kind == "hub":
            raise UserError(f"init={init}: say it of an arm, arm.NAME.init={init}, or of pretrain.init")
        node = adopt(config.pretrain).backbone
        if node is config.pretrain.backbone:
            return config
        return changed(config, {"backbone": node, "pretrain.backbone": node})
    if init.kind == "hub":
        word = str(init.source)
        node = node_of(word, folder_of(word), OmegaConf.select(config, "backbone.pooling"))
        return changed(config, {"backbone": node})
    backbone = config.get("backbone") or {}
    target = backbone.get("_target_")
    if init.kind == "scratch" and target in TARGETS and backbone.get("architecture") is None:
        raise UserError(f"backbone={TARGETS[target]} needs init={HUB}NAME_OR_DIR")
    node = _saved_node(config, init)
    return config if node is None else changed(config, {"backbone": node})


def _saved_node(config: DictConfig, init: Init) -> dict[str, Any] | None:
    """The node of a Hugging Face backbone that a run of ours was pretrained from; None for any other start."""
    if config.get("stage") not in ("pretrain", "finetune") or init.kind == "scratch":
        return None
    try:
        path = Path(init.place)
        if init.kind == "latest":
            path = latest(Path(config.output_dir), "pretrain", config.experiment, lacking_of(config)).path
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


def follow(config: DictConfig) -> DictConfig:
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
        found = newest(runs, lacking_of(config)).path
    return changed(config, {"experiment": finished(found).record.get("experiment", config.experiment)})


def named(config: DictConfig, run: RunFolder) -> DictConfig:
    """The config with this run as the one that `run` names, so that it means the same run when it is read again."""
    return changed(config, {"run": str(run.path.resolve())})


# Where a stage's config may say `latest`, and of which stage the run is that it means.
LATEST = {"finetune": ("init", "pretrain"), "evaluate": ("run", TUNED), "predict": ("run", TUNED)}


def with_latest(config: dict[str, Any]) -> dict[str, Any]:
    """The plain config with the run that `latest` is now, so that a run that ends later changes no job."""
    key, stage = LATEST.get(config["stage"], ("", ""))
    if config.get(key) != "latest":
        return config
    return {
        **config,
        key: str(latest(Path(config["output_dir"]), stage, config["experiment"], lacking_of(config)).path),
    }


def lacking_of(config: Mapping[str, Any]) -> Lacking:
    """The columns that a run with a record needs and this config's data lacks. It imports pandas."""
    from warmstart.data.schema import missing_columns

    return missing_columns(config)
