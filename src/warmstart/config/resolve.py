"""Settings that a config takes from runs and models: the backbone of the initial weights, the experiment of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.config.options import compose_file, has_file, is_given
from warmstart.config.rewrite import changed, merged
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.core.protocols import generates, translates
from warmstart.core.reading import load_json
from warmstart.core.trust import check_targets
from warmstart.huggingface.files import CARD, folder_of
from warmstart.huggingface.resolve import TARGETS, node_of, with_runtime_settings
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, Lacking, finished, latest, newest, runs_of


def with_initial_backbone(config: DictConfig) -> DictConfig:
    """Return the config with the backbone of the model in `init=hf:`, including its architecture.

    The same holds for a run that was pretrained from such a model. With any other `init`, the config is returned
    unchanged. `backbone.pooling` is kept if it is set; by default it is that of the folder (sentence-transformers),
    else the last token for a decoder and the first for an encoder, or the default of an image model without a first
    token.

    Raises:
        UserError: there is no such model, or it requires custom code.
    """
    init = Init.parse(str(config.get("init") or "scratch"))
    if init.kind == "static" and config.get("stage") != "pretrain":
        raise UserError(
            f"init={init}: a static first layer is a pretraining: make a run with stage=pretrain init={init}, "
            "and start from it"
        )
    if "pretrain" in config:
        if init.kind == "hub":
            raise UserError(f"init={init}: set it for an arm, arm.NAME.init={init}, or for pretrain.init")
        node = with_initial_backbone(config.pretrain).backbone
        if node is config.pretrain.backbone:
            return config
        return changed(config, {"backbone": node, "pretrain.backbone": node})
    if init.kind == "hub":
        source = str(init.source)
        node = node_of(source, folder_of(source), OmegaConf.select(config, "backbone.pooling"))
        return changed(config, {"backbone": with_runtime_settings(node, config.get("backbone") or {})})
    backbone = config.get("backbone") or {}
    target = backbone.get("_target_")
    if init.kind in ("scratch", "static") and target in TARGETS and backbone.get("architecture") is None:
        raise UserError(f"backbone={TARGETS[target]} needs init={HUB}NAME_OR_DIR")
    node = _saved_node(config, init)
    return config if node is None else changed(config, {"backbone": with_runtime_settings(node, backbone)})


def with_generic(config: DictConfig) -> DictConfig:
    """Return a finetuning config with `generic` from the pretraining of its experiment, if forgetting=true needs it."""
    if config.get("stage") != "finetune" or not needs_generic(config):
        return config
    name = f"experiment/{config.experiment}/pretrain"
    if not has_file(name):
        return config
    own = merged(*(OmegaConf.to_container(compose_file(file)) for file in ("stage/pretrain", name)))
    found = {key: own[key] for key in GENERIC if key in own}
    if OmegaConf.missing_keys(own.data):
        return config
    return changed(config, {"generic": OmegaConf.to_container(OmegaConf.create(found), resolve=True)})


GENERIC = ("data", "objective", "loss")  # keys of a pretraining in `generic`


def needs_generic(config: Mapping[str, Any]) -> bool:
    """Return whether the forgetting of a finetuning is to be measured on generic data that are not given."""
    is_measured = config.get("forgetting") and config.get("generic") is None
    return bool(is_measured) and Init.parse(str(config.get("init"))).is_pretrained_hub


def for_hub(hub: Any, other: Any, *, _root_: DictConfig) -> Any:
    """Return the first value if the backbone is a Hugging Face model, else the other: `${for_hub:1e-4,1e-3}`."""
    is_hub = Init.parse(str(_root_.get("init") or "scratch")).kind == "hub"
    return hub if is_hub or OmegaConf.select(_root_, "backbone._target_") in TARGETS else other


OmegaConf.register_new_resolver("for_hub", for_hub, replace=True)


def _saved_node(config: DictConfig, init: Init) -> dict[str, Any] | None:
    """Return the Hugging Face backbone node of the run in `init`; None for any other `init`."""
    if config.get("stage") not in ("pretrain", "finetune", "baseline") or init.kind in ("scratch", "static"):
        return None
    try:
        path = Path(init.path)
        if init.kind == "latest":
            path = latest(Path(config.output_dir), "pretrain", config.experiment, missing_columns_of(config)).path
        card = next(file for file in (path / "model" / CARD, path / CARD) if file.is_file())
        node = load_json(card)["backbone"]
        if node["_target_"] not in TARGETS:
            return None
    except (UserError, StopIteration, OSError, ValueError, KeyError, TypeError):
        return None  # opening the folder later raises the error
    check_targets({"backbone": node}, card)
    return node


def saved_backbone(folder: Path, trust: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return the config node of the backbone of a run or of a saved backbone; None if the folder has none.

    Raises:
        UserError: the node names code outside of this project.
    """
    try:
        card = next(file for file in (folder / "model" / CARD, folder / CARD) if file.is_file())
        node = load_json(card)["backbone"]
    except (StopIteration, OSError, ValueError, KeyError, TypeError):
        return None  # opening the folder later raises the error
    check_targets({"backbone": node}, card, trust)
    return node


def teacher_backbone(init: Init, trust: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the config node of the backbone of a teacher; None if the folder has none.

    Raises:
        UserError: there is no such model, or it requires custom code.
    """
    if init.kind == "hub":
        return node_of(str(init), folder_of(str(init)), None)
    return saved_backbone(Path(init.path), trust)


def with_rows(config: DictConfig) -> DictConfig:
    """Return the config without `data.pack` and `data.separate` if a teacher has outputs for rows and not for blocks.

    `data.pack` is kept if it is an override of the command line; it is then refused.
    """
    prefix = "pretrain." if "pretrain" in config else ""
    own = config.get("pretrain") or config
    key = f"{prefix}data.pack"
    if own.get("teacher") is None or OmegaConf.select(own, "data.pack") is None or is_given(key):
        return config
    screen.say(f"{key}={own.data.pack} is not used: a teacher has one output per row")
    separate = f"{prefix}data.separate"
    return changed(config, {key: None} if is_given(separate) else {key: None, separate: False})


# The stages of the runs that `run` may refer to, by stage.
RUN_STAGES = {
    "evaluate": TUNED,
    "predict": TUNED,
    "export": (*TUNED, "pretrain"),
    "generate": (*TUNED, "pretrain"),
    "chat": (*TUNED, "pretrain"),
}
# What the objective of such a run must be able to do, by stage.
NEEDED = {"generate": lambda objective: generates(objective) or translates(objective), "chat": generates}


def is_able(run: RunFolder, stage: str) -> bool:
    """Return whether the objective of a run can do what a stage needs. Imports the objective, for some stages."""
    if stage not in NEEDED:
        return True
    try:
        node = load_json(run.path / "model" / CARD)["objective"]
        check_targets({"objective": node}, run.path)
        return NEEDED[stage](get_object(node["_target_"]))
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def with_run_experiment(config: DictConfig) -> DictConfig:
    """Return the config with the experiment of `run`: that of the latest suitable run, or of the run at a path."""
    stages = RUN_STAGES.get(config.stage)
    if stages is None:
        return config
    found = Path(config.run)
    if config.stage in NEEDED and Init.parse(str(config.run)).is_pretrained_hub:
        return changed(config, {"experiment": "hub"})
    if config.run == "latest":
        output = Path(config.output_dir)
        names = [(stage, path.name) for stage in stages for path in (output / stage).glob("*")]
        runs = [run for name in names for run in runs_of(output, *name) if run.record["status"] == "done"]
        if not runs:
            return config
        runs = [run for run in runs if is_able(run, config.stage)] or runs
        found = newest(runs, missing_columns_of(config)).path
    return changed(config, {"experiment": finished(found).record.get("experiment", config.experiment)})


def with_run(config: DictConfig, run: RunFolder | str) -> DictConfig:
    """Return the config with `run` set to the path of this run or to hf:NAME_OR_DIR, so that a rerun uses the same."""
    return changed(config, {"run": run if isinstance(run, str) else str(run.path.resolve())})


# The keys whose value may be `latest`, and the stages of the run, by stage.
LATEST = {"finetune": ("init", "pretrain"), "evaluate": ("run", TUNED), "predict": ("run", TUNED)}


def with_latest(config: dict[str, Any]) -> dict[str, Any]:
    """Return the plain config with `latest` replaced by the path, so that later runs do not change a job."""
    key, stage = LATEST.get(config["stage"], ("", ""))
    if config.get(key) != "latest":
        return config
    return {
        **config,
        key: str(latest(Path(config["output_dir"]), stage, config["experiment"], missing_columns_of(config)).path),
    }


def missing_columns_of(config: Mapping[str, Any]) -> Lacking:
    """Return a function that returns the columns of a run which this config's data lacks. Imports pandas."""
    from warmstart.data.schema import missing_columns

    return missing_columns(config)
