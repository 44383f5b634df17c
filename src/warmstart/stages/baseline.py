"""stage=baseline: models without training by gradient, and initial weights without training, on the rows of an arm."""

from __future__ import annotations

import time
import warnings
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone, Objective
from warmstart.data.datamodule import TaskDataModule
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.scores import save_scores
from warmstart.training import components
from warmstart.training.checkpoint import is_better
from warmstart.training.frozen import label_words, load_frozen
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.record import note_data, runs_folder
from warmstart.training.start import find_start, given_preprocessor


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Fit on the labelled rows, select a model on validation, and evaluate on the test splits.

    Args:
        config: `baseline`, and data, objective and loss of a finetuning config; for a baseline that uses initial
            weights, also `init`, `preprocessor`, backbone and trainer.
        opened: the run folder to resume; by default, a new one.
    """
    reset_peak_memory()
    started = time.monotonic()
    shared, earlier = Shared.of(config)
    data = shared.prepare(config)
    objective = components.build(
        config.objective, backbone=NoBackbone(), spec=data.spec, loss=components.build_loss(config)
    )
    if "texts" in objective.abilities:
        objective.read_texts(data.preprocessor)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        note_data(run, config, data)
        run.update(parent=shared.parent)
        seed = derive_seed(config.seed, "baseline")
        model, metrics = select(shared, objective, data, seed)
        for split in data.test_parts:
            outputs, y = model.outputs(shared.inputs(data, split, seed)), data.parts[split][1]
            metrics = metrics | measure(objective, outputs, y, split)
            if split == "test":
                save_scores(run, [objective.scores(outputs, y)])
        seconds = time.monotonic() - started + earlier  # as if this run had computed what it shares with earlier ones
        cost = {"seconds": seconds, "steps": 0, "examples": data.rows["train"], "peak_memory_mb": peak_memory_mb()}
        run.update(metrics=metrics, cost=cost)
    return run


class Shared:
    """What consecutive runs of a baseline in one process have in common: splits, held-out inputs, initial weights.

    `seconds` is the time that it took to compute.
    """

    last: Shared | None = None

    def __init__(self, key: str, config: DictConfig):
        started = time.monotonic()
        self.key = key
        self.baseline = components.build(config.baseline)
        target = get_object(config.objective._target_).target
        if target not in self.baseline.target_kinds:
            kinds = " and ".join(sorted(self.baseline.target_kinds))
            raise UserError(
                f"baseline={components.short_name(config.baseline)} predicts targets of kind {kinds}, not {target}: "
                "remove it"
            )
        start, self.parent, preprocessor = None, None, None
        if self.baseline.start is not None:
            start, self.parent = find_start(config)
            preprocessor = given_preprocessor(config, start)
        self.source = components.build_source(config)
        self.splits = self.source.load(target)
        self.data = components.task_data(config, preprocessor, self.source).prepare(self.splits)
        self.frozen, self.words = None, None
        if self.baseline.start is not None:
            has_head = self.baseline.start == "outputs"
            if has_head:
                self.words = label_words(config, start, self.splits.labels, self.baseline.has_examples)
            self.frozen = load_frozen(config, start, self.data, has_head, self.words)
        self.baseline.fit(self.data.preprocessor, self.splits.train.x)
        self.known: dict[str, tuple[Any, Any]] = {}
        self.selected: tuple[Any, dict[str, float]] | None = None
        self.seconds = time.monotonic() - started

    @classmethod
    def of(cls, config: DictConfig) -> tuple[Shared, float]:
        """Return what a run of this config shares with others, and the seconds that earlier runs computed it for."""
        keys = ("baseline", "data", "objective", "loss", "init", "preprocessor", "backbone", "trainer")
        common = {key: config[key] for key in keys if key in config}
        init = Init.parse(str(config.get("init", "scratch")))
        if "init" in config and (init.is_scratch or init.shuffled):
            common["seed"] = config.seed  # of the random weights
        common |= {"data": components.source_node(config), "label_words": config.data.get("label_words")}
        key = OmegaConf.to_yaml(common, resolve=True)
        if cls.last is None or cls.last.key != key:
            cls.last = None  # frees its memory first
            cls.last = cls(key, config)
            return cls.last, 0.0
        return cls.last, cls.last.seconds

    def prepare(self, config: DictConfig) -> TaskDataModule:
        """Return the data of a run, which has its own training rows."""
        data = components.task_data(config, self.data.preprocessor, self.source)
        return data.prepare(self.splits, like=self.data)

    def inputs(self, data: TaskDataModule, split: str, seed: int) -> Any:
        """Return the inputs of the models (N, F) for a split of a run."""
        encoded, y = data.parts[split]
        if self.baseline.has_examples:
            rows = self.encoded(data, split, seed)
            return self.baseline.inputs(data.preprocessor, data.given[split].x, self.frozen.outputs(*rows))
        known = self.known.get(split)
        if known is not None and known[0] is encoded:
            return known[1]
        started = time.monotonic()
        kind, given = self.baseline.start, encoded
        if kind is not None:
            rows = (encoded, y) if self.words is None else self.encoded(data, split, seed)
            given = self.frozen.features(encoded) if kind == "features" else self.frozen.outputs(*rows)
        found = self.baseline.inputs(data.preprocessor, data.given[split].x, given)
        if encoded is self.data.parts[split][0] and (split != "train" or data.subset is None):
            self.known[split] = encoded, found
            self.seconds += time.monotonic() - started
        return found

    def encoded(self, data: TaskDataModule, split: str, seed: int) -> tuple[Any, Any]:
        """Return the rows of a split as the baseline encodes them, and their encoded targets."""
        rows, examples = data.given[split], data.given["train"]
        return self.baseline.encoded(data.preprocessor, rows, examples, seed, self.words)


def select(shared: Shared, objective: Objective, data: TaskDataModule, seed: int) -> tuple[Any, dict[str, float]]:
    """Return the fitted model with the best validation metric, and its validation metrics.

    A model of the outputs of the initial weights is not fitted.
    """
    is_same = data.subset is None and not (shared.baseline.is_random or shared.baseline.has_examples)
    if is_same and shared.selected is not None:
        return shared.selected
    name, mode = objective.monitor
    best: tuple[Any, dict[str, float]] | None = None
    is_fitted = shared.baseline.start != "outputs"
    x, held_out = shared.inputs(data, "train", seed) if is_fitted else None, shared.inputs(data, "validation", seed)
    y, held_out_y = (data.parts[split][1] for split in ("train", "validation"))
    started = time.monotonic()
    for model in shared.baseline.models(data.target, data.spec.outputs, len(y), seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)  # a label that no row has
            if is_fitted:
                model.fit(x, y.numpy())
        metrics = measure(objective, model.outputs(held_out), held_out_y, "val")
        if name not in metrics:
            metric, *others = (key.removeprefix("val/") for key in (name, *metrics))
            raise UserError(
                f"objective.metric={metric} is not computed without a training: set one of {', '.join(others)}"
            )
        if best is None or is_better(metrics[name], best[1][name], mode):
            best = model, metrics
    if is_same:
        shared.selected = best
        shared.seconds += time.monotonic() - started
    return best


class NoBackbone(Backbone):
    """A backbone for objectives of which only the metrics are used."""

    width = target_size = 1


def measure(objective: Any, outputs: Tensor, y: Tensor, split: str) -> dict[str, float]:
    """Return the objective's metrics by name."""
    found: dict[str, float] = {}
    for name, metric in objective.metrics().items():
        value = metric(outputs, y)
        values = value if isinstance(value, dict) else {name: value}
        found |= {f"{split}/{key}": float(score) for key, score in values.items()}
    return found
