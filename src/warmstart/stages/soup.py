"""stage=soup: average the weights of several finetuned runs, or of one run and its initial weights.

Uniform and greedy: Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time. Wise: Wortsman et al. 2022, Robust fine-tuning of zero-shot models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import merged
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.preprocess import rebuild
from warmstart.report.figure import interpolation_png
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.saved import save_model
from warmstart.run.scores import save_scores
from warmstart.soup.models import State, initial_state, read_run, read_sweep
from warmstart.training import components
from warmstart.training.callbacks.averaging import recompute_norms
from warmstart.training.checkpoint import is_better
from warmstart.training.evaluation import measure, validate
from warmstart.training.logger import RunLogger
from warmstart.training.modules import FinetuneModule
from warmstart.training.record import check_data, note_data, runs_folder, show
from warmstart.training.reference import set_initial_references
from warmstart.training.restore import restore
from warmstart.training.trainer import build_trainer

WISE = "wise"
ALPHAS = tuple(tenths / 10 for tenths in range(11))
Tried = list[dict[str, Any]]


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Average the models of `runs=` with `method=`, selected on validation, and test the result once.

    Raises:
        UserError: the method is unknown, or the runs cannot be averaged.
    """
    methods = {"greedy": greedy, "uniform": uniform, WISE: wise}
    if config.method not in methods:
        raise UserError(f"method={config.method}: give {', '.join(methods)}")
    path, trust = Path(config.runs), tuple(config.trust)
    found = [read_run(path, trust)] if config.method == WISE else read_sweep(path, trust)
    model_config = found[0].config
    module, saved = restore(found[0].run, model_config)
    preprocessor = rebuild(saved.preprocessor)
    data = components.task_data(model_config, preprocessor).prepare()
    check_data(found[0].run, data)
    states = [one.state for one in found]
    if config.method == WISE:
        states = [initial_state(found[0], module), *states]
    own = own_config(config, model_config)
    run = opened or RunFolder.create(own, runs_folder(own))
    with run.recording():
        if opened is not None:
            run.write_config(own)
        note_data(run, model_config, data)
        run.update(parent=found[0].run.record["parent"], parents=[one.parent for one in found])
        mixer = Mixer(run, model_config, module, data, states)
        set_initial_references(found[0].run, model_config, data, mixer.trainer)
        shares, tried = methods[config.method](mixer)
        metrics = mixer.measure(shares) | (mixer.test() if model_config.test else {})
        save_model(run, own, module.backbone, module.objective, saved.spec, preprocessor)
        run.update(metrics=metrics, soup={"method": config.method, "shares": shares, "tried": tried})
    show(run, f"soup {own.experiment}: {config.method}")
    screen.next_run("stage=evaluate", f"experiment={screen.quoted(own.experiment)}", f"run={screen.quoted(run.path)}")
    return run


def own_config(config: DictConfig, model_config: DictConfig) -> DictConfig:
    """Return the config of a soup: that of its first run, which builds the model, with the settings of the soup."""
    settings = {key: config[key] for key in ("stage", "runs", "method", "output_dir")}
    return merged(OmegaConf.to_container(model_config, resolve=True), settings)


class Mixer:
    """Averages the weights of models and evaluates the average.

    Args:
        run: run folder of the soup.
        config: config of the models.
        module: module into which averages are loaded.
        data: data of the models.
        states: weights of the models, by name.
    """

    def __init__(
        self, run: RunFolder, config: DictConfig, module: FinetuneModule, data: TaskDataModule, states: list[State]
    ):
        self.run, self.config, self.module, self.data, self.states = run, config, module, data, states
        self.trainer = build_trainer(config.trainer, run.path, None, [])
        self.norms = moved_norms(states)

    def measure(self, shares: Sequence[float]) -> dict[str, float]:
        """Load the average with these shares into the module, and return its val/ metrics.

        Batch-norm statistics are recomputed, unless one model has the share 1.
        """
        self.module.load_state_dict(mix(self.states, shares))
        if max(shares) < 1:
            recompute_norms(self.module, self.trainer, self.norms, self.data)
        return validate(self.trainer, self.module, self.data)

    def test(self) -> dict[str, float]:
        """Return the test metrics of the module; the scores of the test examples are saved."""
        metrics = measure(self.trainer, self.module, self.data)
        save_scores(self.run, self.module.test_scores)
        return metrics


def mix(states: Sequence[State], shares: Sequence[float]) -> State:
    """Return the weighted sum of the tensors; equal and integer tensors are copied from the last model."""
    used = [(share, state) for share, state in zip(shares, states) if share]
    last = used[-1][1]
    mixed = {}
    for name, value in last.items():
        same = not value.is_floating_point() or all(torch.equal(value, state[name]) for _, state in used)
        mixed[name] = value if same else sum(share * state[name].double() for share, state in used).to(value.dtype)
    return mixed


def moved_norms(states: Sequence[State]) -> set[str]:
    """Return the names of batch norms whose statistics differ between models; those of frozen layers do not."""
    means = {name for name in states[0] if name.endswith(".running_mean")}
    moved = {name for name in means if not all(torch.equal(states[0][name], state[name]) for state in states)}
    return {name.removesuffix(".running_mean") for name in moved}


def equal_shares(models: Sequence[int], count: int) -> list[float]:
    """Return equal shares of these models among `count`."""
    return [1 / len(models) if number in models else 0.0 for number in range(count)]


def uniform(mixer: Mixer) -> tuple[list[float], Tried]:
    """Average all runs with equal shares."""
    return equal_shares(range(len(mixer.states)), len(mixer.states)), []


def greedy(mixer: Mixer) -> tuple[list[float], Tried]:
    """Add runs in the order of their validation metric, best first, if the average does not get worse."""
    (name, mode), count = mixer.module.monitor, len(mixer.states)
    alone = [mixer.measure(equal_shares([number], count))[name] for number in range(count)]
    order = sorted(range(count), key=lambda number: alone[number], reverse=mode == "max")
    selected, score, tried = [order[0]], alone[order[0]], []
    for number in order[1:]:
        value = mixer.measure(equal_shares([*selected, number], count))[name]
        is_added = not is_better(score, value, mode)
        tried.append({"run": mixer.run.record["parents"][number]["id"], "alone": alone[number], name: value})
        tried[-1]["taken"] = is_added
        if is_added:
            selected, score = [*selected, number], value
    screen.say(f"{len(selected)} of {count} runs are in the soup; the best single run has {name} {alone[order[0]]:.4g}")
    return equal_shares(selected, count), tried


def wise(mixer: Mixer) -> tuple[list[float], Tried]:
    """Interpolate between initial and final weights and select on validation; of equal points, the last.

    The curve is plotted in wise.png, and in TensorBoard with alpha in percent as the step.
    """
    name, mode = mixer.module.monitor
    logger = RunLogger(mixer.run.path, mixer.config.logger)
    tried: Tried = []
    for alpha in ALPHAS:
        values = mixer.measure([1 - alpha, alpha])
        logger.log_metrics(values, round(100 * alpha))
        tried.append({"alpha": alpha, **values})
    logger.close()
    best = tried[-1]
    for point in reversed(tried):
        best = point if is_better(point[name], best[name], mode) else best
    picture = interpolation_png([(point["alpha"], point[name]) for point in tried], best["alpha"], name)
    write_atomically(mixer.run.path / "wise.png", picture)
    screen.say(f"alpha {best['alpha']:g}: {name} {best[name]:.4g}; final weights alone: {tried[-1][name]:.4g}")
    return [1 - best["alpha"], best["alpha"]], tried
