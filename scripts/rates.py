"""Find the multiple of optimizer.lr with the best validation score of each finetuning strategy, without the test split.

    python scripts/rates.py outputs/rates/digits experiment=digits data.labels_per_class=5 trainer.max_epochs=60 \
        --strategies full linear_probe bitfit --width backbone.hidden=[64,64] --width backbone.hidden=[256,256] \
        --pretrain trainer.max_epochs=100

Pretrains once per width, unless the overrides set init=. A strategy may have overrides, 'lp_ft strategy.rate=10'; the
default `rate` is 1. An existing folder is resumed. Prints a table in Markdown: means and standard deviations over seeds
by multiple, the best one, and its gain over 1 with the standard error of the paired differences.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from hydra.utils import get_object

from warmstart.core.screen import quoted
from warmstart.main import CONF
from warmstart.run.identity import git_state
from warmstart.run.manifest import MANIFEST, RUNS, Job, Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep import launch
from warmstart.sweep.plan import Composer
from warmstart.sweep.schedule import Rules

FIRST_SEED = 100  # apart from the seeds of the demo and of the tables in docs/
LAUNCHER = {"workers": 0, "together": 32}
Scores = dict[float, list[float | None]]  # by multiple, one per seed; None of a run that failed


def planned(options: argparse.Namespace) -> Iterator[Job]:
    """The pretrainings, and each strategy at every multiple and seed."""
    composer = Composer([CONF])
    experiment = [word for word in options.words if word.startswith("experiment=")]
    output = [f"output_dir={quoted(options.folder)}"]
    for number, width in enumerate(options.width):
        needs, start = None, []
        if not any(word.startswith("init=") for word in options.words):
            needs = f"pretrain{number}"
            start = [f"init={quoted(options.folder / RUNS / needs)}"]
            words = ["stage=pretrain", "visualization=[]", *experiment, *output, *width, *options.pretrain]
            yield Job(needs, {}, composer.config(words))
        for place, chosen in enumerate(options.strategies):
            name, *settings = chosen.split()
            fixed = ["stage=finetune", "visualization=[]", "test=false", f"strategy={name}", *output]
            shared = composer.config([*fixed, *start, *options.words, *width, *settings])
            if "rate" in shared["strategy"] and not any(word.startswith("strategy.rate=") for word in settings):
                shared["strategy"]["rate"] = 1.0
            for multiple, seed in itertools.product(options.multiples, range(FIRST_SEED, FIRST_SEED + options.seeds)):
                config = copy.deepcopy(shared)
                config["seed"] = seed
                config["optimizer"]["lr"] = float(f"{shared['optimizer']['lr'] * multiple:.3g}")
                values = {"strategy": chosen, "width": " ".join(width), "multiple": multiple, "seed": seed}
                yield Job(f"width{number}-{place}_{name}-times_{multiple:g}-seed{seed}", values, config, needs)


def opened(options: argparse.Namespace) -> Manifest:
    """The plan, frozen in its folder; where that has one, the very same."""
    jobs = list(planned(options))
    if (options.folder / MANIFEST).exists():
        begun = Manifest.read(options.folder)
        if [job.sha256 for job in begun.jobs] != [job.sha256 for job in jobs]:
            sys.exit(f"{options.folder} was begun by another command: give another folder")
        return begun
    metric, mode = get_object(jobs[-1].config["objective"]["_target_"]).monitor
    experiment = jobs[-1].config["experiment"]
    manifest = Manifest(options.folder, "finetune", experiment, sys.argv[1:], metric, mode, git_state(), jobs)
    manifest.write()
    return manifest


def collected(manifest: Manifest) -> dict[tuple[str, str], Scores]:
    """Validation scores by width and strategy."""
    found: dict[tuple[str, str], Scores] = {}
    for job in manifest.jobs:
        if job.values:
            record = manifest.record(job.name) or {}
            score = record["metrics"][manifest.metric] if record.get("status") == "done" else None
            scores = found.setdefault((job.values["width"], job.values["strategy"]), {})
            scores.setdefault(job.values["multiple"], []).append(score)
    return found


def table(manifest: Manifest) -> str:
    """What was measured, in Markdown; a multiple of which a run failed is not chosen."""
    found = collected(manifest)
    multiples = list(next(iter(found.values())))
    shown = ["width", "strategy", *(f"times {multiple:g}" for multiple in multiples), "best", "gain over times 1"]
    lines = [f"| {' | '.join(shown)} |", f"|{' --- |' * len(shown)}"]
    for (width, strategy), scores in found.items():
        complete = {multiple: own for multiple, own in scores.items() if None not in own}
        sign = 1 if manifest.mode == "max" else -1
        best = max(complete, key=lambda multiple: sign * statistics.fmean(complete[multiple]), default=None)
        cells = [spread(own) if multiple in complete else "failed" for multiple, own in scores.items()]
        gain = "-"
        if best is not None and 1 in complete:
            gain = difference([sign * (high - low) for high, low in zip(complete[best], complete[1])])
        row = [width or "-", strategy, *cells, "-" if best is None else f"{best:g}", gain]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def spread(scores: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(scores):.3f}" + (f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else "")


def difference(gains: list[float]) -> str:
    """Mean and standard error."""
    error = f" ± {statistics.stdev(gains) / len(gains) ** 0.5:.3f}" if len(gains) > 1 else ""
    return f"{statistics.fmean(gains):+.3f}{error}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument("words", nargs="+", help="of the finetuning, experiment= among them")
    parser.add_argument("--strategies", nargs="+", required=True)
    parser.add_argument("--multiples", nargs="+", type=float, default=[0.3, 1, 3, 10, 30])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", nargs="+", action="append", help="words of both stages; may be repeated")
    parser.add_argument("--pretrain", nargs="+", default=[], help="words of the pretraining only")
    options = parser.parse_args()
    options.width = options.width or [[]]
    manifest = opened(options)
    launch.run(manifest, LAUNCHER, Rules(), StageRunner())
    print(f"{manifest.metric}, {options.seeds} seeds\n\n{table(manifest)}")


if __name__ == "__main__":
    main()
