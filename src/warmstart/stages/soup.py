"""stage=soup: one model from the weights of several finetuned runs, or of one run and its start.

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
from warmstart.training.restore import restore
from warmstart.training.trainer import build_trainer

WISE = "wise"
ALPHAS = tuple(tenths / 10 for tenths in range(11))
Tried = list[dict[str, Any]]


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Mix what `runs=` names as `method=` says, choosing on validation, and test the result once.

    Raises:
        UserError: the method is not known, or the runs cannot be averaged.
    """
    methods = {"greedy": greedy, "uniform": uniform, WISE: wise}
    if config.method not in methods:
        raise UserError(f"method={config.method}: give {', '.join(methods)}")
    path, trust = Path(config.runs), tuple(config.trust)
    found = [read_run(path, trust)] if config.method == WISE else read_sweep(path, trust)
    theirs = found[0].config
    module, saved = restore(found[0].run, theirs)
    preprocessor = rebuild(saved.preprocessor)
    data = components.task_data(theirs, preprocessor).prepare()
    check_data(found[0].run, data)
    states = [one.state for one in found]
    if config.method == WISE:
        states = [initial_state(found[0], module), *states]
    own = own_config(config, theirs)
    run = opened or RunFolder.create(own, runs_folder(own))
    with run.recording():
        if opened is not None:
            run.write_config(own)
        note_data(run, theirs, data)
        run.update(parent=found[0].run.record["parent"], parents=[one.parent for one in found])
        mixer = Mixer(run, theirs, module, data, states)
        shares, tried = methods[config.method](mixer)
        metrics = mixer.measure(shares) | (mixer.test() if theirs.test else {})
        save_model(run, own, module.backbone, module.objective, saved.spec, preprocessor)
        run.update(metrics=metrics, soup={"method": config.method, "shares": shares, "tried": tried})
    show(run, f"soup {own.experiment}: {config.method}")
    screen.next_run("stage=evaluate", f"experiment={screen.quoted(own.experiment)}", f"run={screen.quoted(run.path)}")
    return run


def own_config(config: DictConfig, theirs: DictConfig) -> DictConfig:
    """The config of a soup: that of its first run, with which its model is built, and what the soup is made of."""
    said = {key: config[key] for key in ("stage", "runs", "method", "output_dir")}
    return merged(OmegaConf.to_container(theirs, resolve=True), said)


class Mixer:
    """Averages weights, and measures the average on held-out data.

    Args:
        run: the soup's run.
        config: a config of its models.
        module: takes the averaged weights.
        data: of its models.
        states: their weights, by name.
    """

    def __init__(
        self, run: RunFolder, config: DictConfig, module: FinetuneModule, data: TaskDataModule, states: list[State]
    ):
        self.run, self.config, self.module, self.data, self.states = run, config, module, data, states
        self.trainer = build_trainer(config.trainer, run.path, None, [])
        self.norms = moved_norms(states)

    def measure(self, shares: Sequence[float]) -> dict[str, float]:
        """The val/ metrics of the weights in these shares, with which the module is left.

        Statistics of batch norms are recomputed, unless the weights are those of one state.
        """
        self.module.load_state_dict(mix(self.states, shares))
        if max(shares) < 1:
            recompute_norms(self.module, self.trainer, self.norms, self.data)
        return validate(self.trainer, self.module, self.data)

    def test(self) -> dict[str, float]:
        """The test metrics of the module as it is; the scores of its examples are written down."""
        metrics = measure(self.trainer, self.module, self.data)
        save_scores(self.run, self.module.test_scores)
        return metrics


def mix(states: Sequence[State], shares: Sequence[float]) -> State:
    """The sum of the tensors in these shares; one that is the same in all, or of whole numbers, is that of the last."""
    used = [(share, state) for share, state in zip(shares, states) if share]
    last = used[-1][1]
    mixed = {}
    for name, value in last.items():
        same = not value.is_floating_point() or all(torch.equal(value, state[name]) for _, state in used)
        mixed[name] = value if same else sum(share * state[name].double() for share, state in used).to(value.dtype)
    return mixed


def moved_norms(states: Sequence[State]) -> set[str]:
    """Names of the batch norms whose statistics are not the same everywhere: those of frozen parts are."""
    means = {name for name in states[0] if name.endswith(".running_mean")}
    moved = {name for name in means if not all(torch.equal(states[0][name], state[name]) for state in states)}
    return {name.removesuffix(".running_mean") for name in moved}


def even(members: Sequence[int], count: int) -> list[float]:
    """Equal shares of these members among `count`."""
    return [1 / len(members) if number in members else 0.0 for number in range(count)]


def uniform(mixer: Mixer) -> tuple[list[float], Tried]:
    """All runs in equal shares."""
    return even(range(len(mixer.states)), len(mixer.states)), []


def greedy(mixer: Mixer) -> tuple[list[float], Tried]:
    """From the best on validation down, each run that does not make the average worse there."""
    (name, mode), count = mixer.module.monitor, len(mixer.states)
    alone = [mixer.measure(even([number], count))[name] for number in range(count)]
    order = sorted(range(count), key=lambda number: alone[number], reverse=mode == "max")
    members, score, tried = [order[0]], alone[order[0]], []
    for number in order[1:]:
        value = mixer.measure(even([*members, number], count))[name]
        is_taken = not is_better(score, value, mode)
        tried.append({"run": mixer.run.record["parents"][number]["id"], "alone": alone[number], name: value})
        tried[-1]["taken"] = is_taken
        if is_taken:
            members, score = [*members, number], value
    screen.say(f"{len(members)} of {count} runs are in the soup; the best alone has {name} {alone[order[0]]:.4g}")
    return even(members, count), tried


def wise(mixer: Mixer) -> tuple[list[float], Tried]:
    """The point between start and end that is best on validation, of equal ones the nearest to the end.

    The curve is drawn in wise.png, and in TensorBoard with alpha in percent for the step.
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
    screen.say(f"alpha {best['alpha']:g}: {name} {best[name]:.4g}; the end alone: {tried[-1][name]:.4g}")
    return [1 - best["alpha"], best["alpha"]], tried
