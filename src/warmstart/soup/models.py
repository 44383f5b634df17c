"""The models of a soup: compatible finetuned runs, or one run and its initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from warmstart.config.rewrite import from_parent
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.saved_model import SavedModel
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import finished
from warmstart.run.manifest import MANIFEST, Manifest
from warmstart.run.saved import open_model
from warmstart.training.modules import FinetuneModule
from warmstart.training.start import check_parent, find_start, load_head, load_start

State = dict[str, Tensor]
SPLIT_KEYS = ("folds", "fold", "labels_per_class", "label_fraction")  # settings of `data` that select validation rows


@dataclass(frozen=True)
class SoupModel:
    """A finetuned run, its config and its model."""

    run: RunFolder
    config: DictConfig
    saved: SavedModel

    @property
    def state(self) -> State:
        """Return the state dict with the names of a FinetuneModule."""
        head = {f"objective.{name}": value for name, value in self.saved.head.items()}
        return {f"backbone.{name}": value for name, value in self.saved.weights.items()} | head

    @property
    def parent(self) -> dict[str, Any]:
        """Return id, weights_sha256 and path, as recorded by a soup."""
        return {
            "id": self.run.record["id"],
            "weights_sha256": self.saved.weights_sha256,
            "path": str(self.run.path.resolve()),
        }


def read_sweep(folder: Path, trust: tuple[str, ...]) -> list[SoupModel]:
    """Read the finished runs of a finetuning sweep, in the order of its plan.

    Raises:
        UserError: it is no finetuning sweep, fewer than two runs are done, or two of them are incompatible.
    """
    if not (folder / MANIFEST).is_file() and (folder / "run.json").is_file():
        raise UserError(f"runs={folder} is a single run: give the folder of a finetuning sweep, or set method=wise")
    manifest = Manifest.read(folder)
    if manifest.stage != "finetune":
        raise UserError(f"runs={folder} is a sweep of stage={manifest.stage}: give the folder of a finetuning sweep")
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    if len(done) < 2:
        count = "one run is" if done else "no run is"
        raise UserError(f"runs={folder}: {count} done, but an average needs two; jobs.csv lists the states")
    found = [read_run(manifest.path(name), trust) for name in done]
    check_compatible(found)
    return found


def read_run(path: Path, trust: tuple[str, ...]) -> SoupModel:
    """Read a finished finetuning run with trained initial weights.

    Raises:
        UserError: the run is no such run, or a file is missing or damaged.
    """
    if (path / MANIFEST).is_file():
        raise UserError(f"runs={path} is a sweep, but method=wise takes a single run: give a folder below its runs/")
    run = finished(path, "finetune")
    config = run.config(trust)
    if run.record["parent"] is None or Init.parse(config.init).shuffled:
        raise UserError(f"{path} has init={config.init}: a soup needs runs with trained initial weights")
    return SoupModel(run, config, open_model(path / "model", run))


def check_compatible(found: Sequence[SoupModel]) -> None:
    """Check that the weights of the runs can be averaged and their scores compared.

    Raises:
        UserError: two runs differ in parent, labels, backbone, objective, head or data; the message names them.
    """
    first = found[0]
    for other in found[1:]:
        backbones = [_flat(one.saved.card["backbone"]) for one in (first, other)]
        settings = [key for key in {**backbones[0], **backbones[1]} if backbones[0].get(key) != backbones[1].get(key)]
        heads = [{name: tuple(value.shape) for name, value in one.saved.head.items()} for one in (first, other)]
        differences = {
            "have different initial weights (SHA-256 of the parent)": [
                one.run.record["parent"]["weights_sha256"][:12] for one in (first, other)
            ],
            "have different labels": [", ".join(one.saved.spec.labels) for one in (first, other)],
            f"have different backbones ({', '.join(settings[:3])})": [
                ", ".join(str(backbone.get(key)) for key in settings[:3]) for backbone in backbones
            ],
            "have different objectives": [one.saved.card["objective"]["_target_"] for one in (first, other)],
            "have heads of different shapes": heads,
            "validate on different rows (seed, data.folds, data.fold or labels)": [
                {"seed": one.config.seed, **{key: one.config.data[key] for key in SPLIT_KEYS}}
                if one.config.data.get("folds")
                else "validation split of the data set"
                for one in (first, other)
            ],
            "were trained on different data (fingerprint)": [
                one.run.record["data"]["fingerprint"][:12] for one in (first, other)
            ],
        }
        for difference, (ours, theirs) in differences.items():
            if ours != theirs:
                raise UserError(
                    f"{first.run.path.name} and {other.run.path.name} {difference}: {ours} and {theirs}; "
                    "their weights cannot be averaged"
                )


def initial_state(end: SoupModel, module: FinetuneModule) -> State:
    """Return the initial weights of a run; parameters without trained initial weights have their final values.

    These are a new head, and the layers that match `reinitialize`.

    Args:
        end: the run.
        module: has the final weights of the run, which are overwritten.

    Raises:
        UserError: the initial weights are missing or have changed.
    """
    config = from_parent(end.config, end.run.record["parent"])
    start, found = find_start(config)
    check_parent(end.run, found)
    load_start(module.backbone, start, tuple(config.reinitialize))
    if end.run.record["transfer"].get("head") == "loaded":
        load_head(module.objective, start, end.saved.spec.labels)
    else:
        screen.say("the head is not interpolated: it has no trained initial weights")
    return {name: value.clone() for name, value in module.state_dict().items()}


def _flat(node: Any, prefix: str = "backbone") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{prefix}.{name}").items()}
