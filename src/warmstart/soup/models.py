"""What a soup is made of: finetuned runs whose weights may be averaged, or one run and the weights it started from."""

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
CUT = ("folds", "fold", "labels_per_class", "label_fraction")  # settings of `data` that say which rows validate


@dataclass(frozen=True)
class SoupModel:
    """A finetuned run, its config and its model."""

    run: RunFolder
    config: DictConfig
    saved: SavedModel

    @property
    def state(self) -> State:
        """Its tensors, by the names they have in a FinetuneModule."""
        head = {f"objective.{name}": value for name, value in self.saved.head.items()}
        return {f"backbone.{name}": value for name, value in self.saved.weights.items()} | head

    @property
    def parent(self) -> dict[str, Any]:
        """Who it is, in the record of a soup."""
        return {
            "id": self.run.record["id"],
            "weights_sha256": self.saved.weights_sha256,
            "path": str(self.run.path.resolve()),
        }


def read_sweep(folder: Path, trust: tuple[str, ...]) -> list[SoupModel]:
    """The finished runs of a finetuning sweep, in the order of its plan.

    Raises:
        UserError: it is no such sweep, fewer than two are done, or two of them cannot be averaged.
    """
    if not (folder / MANIFEST).is_file() and (folder / "run.json").is_file():
        raise UserError(f"runs={folder} is one run: give the folder of a finetuning sweep, or method=wise")
    manifest = Manifest.read(folder)
    if manifest.stage != "finetune":
        raise UserError(f"runs={folder} is of stage={manifest.stage}: give the folder of a finetuning sweep")
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    if len(done) < 2:
        count = "only one run is" if done else "no run is"
        raise UserError(f"runs={folder}: {count} done, and an average needs two; see its jobs.csv")
    found = [read_run(manifest.path(name), trust) for name in done]
    check_alike(found)
    return found


def read_run(path: Path, trust: tuple[str, ...]) -> SoupModel:
    """A finished finetuning run that started from the weights of another.

    Raises:
        UserError: it is none, or a file is missing or damaged.
    """
    if (path / MANIFEST).is_file():
        raise UserError(f"runs={path} is a sweep, and method=wise takes one run: give one below its runs folder")
    run = finished(path, "finetune")
    config = run.config(trust)
    if run.record["parent"] is None or Init.parse(config.init).shuffled:
        raise UserError(f"{path} started from init={config.init}: a soup needs runs that start from trained weights")
    return SoupModel(run, config, open_model(path / "model", run))


def check_alike(found: Sequence[SoupModel]) -> None:
    """Refuse runs whose weights or scores have nothing to do with each other.

    Raises:
        UserError: names two of them, and what differs: parent, labels, backbone, objective, head or data.
    """
    first = found[0]
    for other in found[1:]:
        backbones = [_flat(one.saved.card["backbone"]) for one in (first, other)]
        settings = [key for key in {**backbones[0], **backbones[1]} if backbones[0].get(key) != backbones[1].get(key)]
        heads = [{name: tuple(value.shape) for name, value in one.saved.head.items()} for one in (first, other)]
        differences = {
            "start from other weights (the parent's SHA-256)": [
                one.run.record["parent"]["weights_sha256"][:12] for one in (first, other)
            ],
            "have other labels": [", ".join(one.saved.spec.labels) for one in (first, other)],
            f"have other backbones ({', '.join(settings[:3])})": [
                ", ".join(str(backbone.get(key)) for key in settings[:3]) for backbone in backbones
            ],
            "have other objectives": [one.saved.card["objective"]["_target_"] for one in (first, other)],
            "have heads of other shapes": heads,
            "validate on other rows (seed, data.folds, data.fold or labels)": [
                {"seed": one.config.seed, **{key: one.config.data[key] for key in CUT}}
                if one.config.data.get("folds")
                else "the data set's own"
                for one in (first, other)
            ],
            "were made on other data (the fingerprint)": [
                one.run.record["data"]["fingerprint"][:12] for one in (first, other)
            ],
        }
        for words, (here, there) in differences.items():
            if here != there:
                raise UserError(
                    f"{first.run.path.name} and {other.run.path.name} {words}: {here} and {there}; "
                    "their average would mean nothing"
                )


def start_state(end: SoupModel, module: FinetuneModule) -> State:
    """The weights that a run started from. A new head, and what `fresh` let start anew, had no trained start.

    In its place is what the run came to.

    Args:
        end: the run.
        module: with the run's weights, which are overwritten.

    Raises:
        UserError: the start is no longer there, or no longer what it was.
    """
    config = from_parent(end.config, end.run.record["parent"])
    start, found = find_start(config)
    check_parent(end.run, found)
    load_start(module.backbone, start, tuple(config.fresh))
    if end.run.record["transfer"].get("head") == "loaded":
        load_head(module.objective, start, end.saved.spec.labels)
    else:
        screen.say("the head is the finetuned one at every alpha: it had no trained start")
    return {name: value.clone() for name, value in module.state_dict().items()}


def _flat(node: Any, prefix: str = "backbone") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{prefix}.{name}").items()}
