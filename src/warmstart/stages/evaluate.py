"""stage=evaluate: compute the test metrics of a finetuned run with its saved model."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from warmstart.config.resolve import with_run
from warmstart.core import screen
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, find
from warmstart.training import components
from warmstart.training.adaptation import NormAdaptation, measure_adapted
from warmstart.training.evaluation import measure
from warmstart.training.record import check_data, note_data, note_scoring, runs_folder, show
from warmstart.training.reference import set_initial_references
from warmstart.training.restore import restore
from warmstart.training.trainer import build_trainer


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Evaluate the run `run=` on the test split of its data and on each shifted test split."""
    finetuned = find(config.run, Path(config.output_dir), TUNED, config.experiment)
    screen.say(f"evaluating {finetuned.path}")
    trained_config = finetuned.config(tuple(config.trust))
    module, saved = restore(finetuned, trained_config)
    adaptation = None
    if config.get("adapt") is not None:
        adaptation = NormAdaptation(module, f"backbone={components.short_name(trained_config.backbone)}")
    data = components.task_data(trained_config, rebuild(saved.preprocessor)).prepare()
    check_data(finetuned, data)
    parent = {"id": finetuned.record["id"], "weights_sha256": saved.weights_sha256}
    run = opened or RunFolder.create(with_run(config, finetuned), runs_folder(config))
    with run.recording():
        note_data(run, trained_config, data)
        note_scoring(run, module.objective)
        run.update(parent=parent)
        trainer = build_trainer(trained_config.trainer, run.path, None, [])
        set_initial_references(finetuned, trained_config, data, trainer)
        if adaptation is None:
            run.update(metrics=measure(trainer, module, data))
        else:
            module.to(trainer.strategy.root_device)
            run.update(metrics=measure_adapted(adaptation, trainer, module, data), adapt=adaptation.record())
            screen.say(adaptation.describe())
    adapted = "" if adaptation is None else ", norms adapted to their inputs"
    show(run, f"evaluate {config.experiment}: {data.rows['test']:,} test rows{adapted}")
    run_override = f"run={screen.quoted(finetuned.path)}"
    screen.next_run("stage=predict", f"experiment={screen.quoted(config.experiment)}", run_override, "input=FILE")
    return run
