"""Every yaml file composes, names its target on the first line, and matches that target's signature."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from warmstart.config.schema import TRAINER
from warmstart.config.validate import check
from warmstart.main import CONF

pytestmark = pytest.mark.quick

GROUPS = ("data", "backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average", "baseline")
TRANSFORMS = sorted((CONF / "data/augment").glob("*.yaml"))  # several of which can be chosen
PARTS = [path for group in GROUPS for path in sorted((CONF / group).rglob("*.yaml")) if path not in TRANSFORMS]
PARTS.append(CONF / "trainer/default.yaml")
SEVERAL = [path for group in ("logger", "visualization") for path in sorted((CONF / group).glob("*.yaml"))]
RUN_TIME_FACTS = {
    "data": (),
    "backbone": ("spec",),
    "stem": ("spec", "width"),
    "objective": ("backbone", "spec", "loss"),
    "loss": ("outputs", "targets"),
    "optimizer": ("params",),
    "scheduler": ("step", "total"),
    "strategy": (),
    "average": (),
    "baseline": (),
    "trainer": (),
}
THIRD_PARTY = ("torch.optim.", "pytorch_lightning.", "warmstart.training.schedule.", "warmstart.training.muon.")
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
STAGES = sorted(path.stem for path in (CONF / "stage").glob("*.yaml"))
NEEDED = {
    "ner": ["data.root=x"],
    "preferences": ["data.root=x"],
    "table": ["data.root=x.csv", "data.target=y"],
    "images": ["data.root=x"],
    "recordings": ["data.root=x"],
    "text": ["data.root=x", "data.text=x", "data.target=y"],
    "transcribe": ["data.root=x"],
}
STAGE_NEEDS = {"rerun": ["run=x"], "predict": ["input=x"], "report": ["runs=x"], "soup": ["runs=x"]}
TRAINING = ("pretrain", "finetune", "transfer")
OURS = ("_target_", "_partial_", "defaults", "max_tokens", "sharding", "threads")  # keys that the target never gets


def target_of(path: Path) -> str:
    """What a part's yaml names on its first line."""
    return path.read_text().splitlines()[0].removeprefix("_target_: ")


@functools.cache
def own_settings(path: Path) -> dict[str, object]:
    """What a part's yaml gives its target, by name; a nested part counts as one setting."""
    node = OmegaConf.to_container(OmegaConf.load(path))
    nested = [name for default in node.get("defaults", []) if isinstance(default, dict) for name in default]
    return {**{key: value for key, value in node.items() if key not in OURS}, **dict.fromkeys(nested)}


@pytest.mark.parametrize("path", PARTS, ids=lambda path: str(path.relative_to(CONF)))
def test_part_names_a_target_of_its_package_and_binds_to_it(path: Path):
    assert path.read_text().startswith("_target_: ")
    target = target_of(path)
    group = path.relative_to(CONF).parts[0]
    if group in ("trainer", "optimizer", "scheduler"):
        assert target.startswith(THIRD_PARTY)
    else:
        package = "huggingface" if path.stem.startswith("huggingface") else group
        assert target.startswith(f"warmstart.{package}.")
    facts = dict.fromkeys(RUN_TIME_FACTS["stem" if path.parent.name == "stem" else group])
    inspect.signature(get_object(target)).bind(**own_settings(path), **facts)


@pytest.mark.parametrize("path", TRANSFORMS, ids=lambda path: path.stem)
def test_option_of_augment_is_a_transform_of_its_name_or_a_set_of_others(path: Path, composed):
    node = OmegaConf.to_container(OmegaConf.load(path))
    chosen = composed("stage=pretrain", f"data/augment={path.stem}").data.augment
    assert list(chosen) == ([path.stem] if path.stem in node else node.get("defaults", ["_self_"])[: len(chosen)])
    for transform in chosen.values():
        assert transform._target_.startswith("warmstart.data.transforms.")
        settings = {key: value for key, value in transform.items() if key != "_target_"}
        inspect.signature(get_object(transform._target_)).bind(**settings)


def has(experiment: str, stage: str) -> bool:
    """Whether to compose these: to a stage that does not train, one experiment is like another."""
    return (
        experiment == "digits" if stage not in TRAINING else (CONF / f"experiment/{experiment}/{stage}.yaml").exists()
    )


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_is_a_name_and_its_training_stages(experiment: str):
    assert OmegaConf.load(CONF / f"experiment/{experiment}.yaml") == {"experiment": experiment}
    assert {path.stem for path in (CONF / f"experiment/{experiment}").glob("*.yaml")} <= set(TRAINING)


def experiment_stage_cases() -> list[tuple[str, str]]:
    return [(experiment, stage) for experiment in EXPERIMENTS for stage in STAGES if has(experiment, stage)]


def needed(experiment: str, stage: str) -> list[str]:
    return NEEDED.get(experiment, []) if stage in TRAINING else []


@pytest.mark.parametrize(("experiment", "stage"), experiment_stage_cases())
def test_every_experiment_composes_for_every_stage(experiment: str, stage: str, composed):
    trains = stage in TRAINING
    words = [*needed(experiment, stage), *STAGE_NEEDS.get(stage, [])]
    config = composed(f"stage={stage}", f"experiment={experiment}", *words)
    assert config.stage == stage
    assert config.experiment == experiment
    assert not OmegaConf.missing_keys(config)
    check(OmegaConf.masked_copy(config, [key for key in config if key not in ("sweep", "resume", "extend")]))
    if trains:
        assert {"data", "backbone", "objective", "optimizer", "scheduler", "trainer"} <= set(config)


SWAPPED = ("backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")


def probes(group: str) -> list[Path]:
    """As few parts of a group as share only what all of them share: any other setting is foreign to one of these."""
    parts = sorted((CONF / group).glob("*.yaml"), key=lambda path: len(own_settings(path)))
    chosen, shared = [], set.union(*(set(own_settings(path)) for path in parts))
    for path in parts:
        if shared - set(own_settings(path)):
            chosen.append(path)
            shared &= set(own_settings(path))
    return chosen


@pytest.mark.parametrize(
    ("experiment", "stage"),
    [(experiment, stage) for experiment, stage in experiment_stage_cases() if stage in ("pretrain", "finetune")],
)
def test_a_component_replaced_in_any_experiment_gets_no_setting_of_the_previous_one(experiment, stage, composed):
    base = (f"stage={stage}", f"experiment={experiment}", *needed(experiment, stage))
    present = composed(*base)
    swapped = {group: probes(group) for group in SWAPPED if group in present or group == "loss"}
    foreign = {group: set() for group in swapped}
    for number in range(max(map(len, swapped.values()))):
        chosen = {group: paths[number % len(paths)] for group, paths in swapped.items()}
        config = composed(*base, *(f"{group}={path.stem}" for group, path in chosen.items()))
        for group, path in chosen.items():
            foreign[group] |= set(config[group]) - {*OURS} - set(own_settings(path))
    for group, left in foreign.items():
        for path in (CONF / group).glob("*.yaml"):
            facts = dict.fromkeys([*left, *RUN_TIME_FACTS[group]])
            inspect.signature(get_object(target_of(path))).bind(**{**own_settings(path), **facts})


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "debug").glob("*.yaml")))
def test_debug_ladder_only_changes_the_trainer(name: str, composed):
    plain, debug = composed("stage=finetune"), composed("stage=finetune", f"debug={name}")
    changed = {key for key in debug if debug[key] != plain.get(key)}
    assert changed == {"trainer"}
    inspect.signature(get_object(debug.trainer._target_)).bind(
        **{key: value for key, value in debug.trainer.items() if key not in OURS}
    )


def test_components_are_replaced_by_one_override_and_foreign_ones_refused(cli, composed):
    config = composed("stage=finetune", "optimizer=sgd", "data=vectors", "strategy=linear_probe", "loss=focal")
    assert config.optimizer._target_ == "torch.optim.SGD"
    assert config.loss._target_.endswith("focal")
    refused = cli("stage=pretrain", "strategy=full")
    assert refused.status == 2
    assert "strategy" in refused.error


def test_transfer_has_the_complete_pretraining_config(composed):
    transfer, pretrain = composed("stage=transfer"), composed("stage=pretrain")
    whole = OmegaConf.to_container(transfer, resolve=True)["pretrain"]
    alone = OmegaConf.to_container(pretrain, resolve=True)
    assert {**whole, "output_dir": "outputs", "sweep": alone["sweep"], "resume": None, "extend": None} == alone


def test_settings_of_the_trainer_are_those_of_lightning_and_each_shipped_one_has_a_range():
    target = inspect.signature(get_object("pytorch_lightning.Trainer")).parameters
    assert set(TRAINER.keys) - set(target) == {"_target_", "max_tokens", "sharding", "threads"}
    assert set(own_settings(CONF / "trainer/default.yaml")) <= set(TRAINER.keys)


@pytest.mark.parametrize("path", SEVERAL, ids=lambda path: str(path.relative_to(CONF)))
def test_a_logger_or_visualization_is_one_component_under_its_own_name(path: Path):
    node = OmegaConf.load(path)
    if path.stem == "default":
        assert {"default", *node.defaults} == {other.stem for other in path.parent.glob("*.yaml")}
        return
    assert list(node) == [path.stem]
    settings = {key: value for key, value in node[path.stem].items() if key != "_target_"}
    inspect.signature(get_object(node[path.stem]._target_)).bind_partial(**settings)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_trainer_of_a_device_only_changes_what_differs(name: str, composed):
    plain, chosen = composed("stage=finetune").trainer, composed("stage=finetune", f"trainer={name}").trainer
    assert chosen.accelerator == name
    assert {key for key in chosen if chosen[key] != plain.get(key)} <= {"accelerator", "precision"}
