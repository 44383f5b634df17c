"""What could make a report wrong: said at its top, and measured where it can be."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from warmstart.report.runs import Run, Transfer
from warmstart.report.shared_rows import sentence
from warmstart.report.verdicts import comparisons, labels_text


def checks(transfer: Transfer) -> dict[str, Any]:
    """Weights loaded, feature change, overlap of the data, and fit by arm, as plain JSON."""
    warm = [run for run in transfer.runs if run.record.get("transfer")]
    parents = {base["id"]: base.get("weights_sha256") for base in transfer.bases}
    if not parents:  # the arms start from weights that were there before
        started = (run.record.get("parent") or {} for run in warm)
        parents = {one.get("path"): one.get("weights_sha256") for one in started if one.get("path")}
    return {
        "parents": [{"id": name, "weights_sha256": digest} for name, digest in parents.items()],
        "fraction_loaded": min((run.record["transfer"]["fraction"] for run in warm), default=None),
        "overlap": transfer.record.get("overlap"),
        "arms": [fit(transfer, arm, budget) for budget in transfer.budgets for arm in planned(transfer, budget)],
    }


def planned(transfer: Transfer, budget: str) -> list[str]:
    """The arms that have runs of their own at a budget."""
    return [arm for arm in transfer.arms if any((run.arm, run.budget) == (arm, budget) for run in transfer.runs)]


def fit(transfer: Transfer, arm: str, budget: str) -> dict[str, Any]:
    """Means over an arm's runs: similarity of its features to the pretrained ones, overfitting, calibration."""
    runs = [run for run in transfer.runs if (run.arm, run.budget, run.state) == (arm, budget, "done")]
    return {
        "arm": arm,
        "budget": budget,
        "n": len(runs),
        "cka": mean([run.record.get("cka") for run in runs]),
        "loss_gap": mean([loss_gap(transfer, run) for run in runs]),
        "calibration_error": mean([run.record["metrics"].get("test/calibration_error") for run in runs]),
        "steps": mean([run.cost.get("steps") for run in runs]),
    }


def mean(values: list[float | None]) -> float | None:
    """The mean of those that are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def loss_gap(transfer: Transfer, run: Run) -> float | None:
    """Validation loss minus training loss, both at the end of a run."""
    held_out, training = (transfer.series(run, name) for name in ("val/loss", "train/loss"))
    return float(held_out.iloc[-1] - training.iloc[-1]) if len(held_out) and len(training) else None


def warnings(transfer: Transfer, report: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the rest, most serious first."""
    return [
        *overlap_warnings(transfer),
        *state_warnings(transfer),
        *control_warnings(transfer, report),
        *convergence_warnings(transfer),
        *noise_warnings(transfer),
    ]


def overlap_warnings(transfer: Transfer) -> list[str]:
    """Test rows that every run has trained on, or that the pretraining has seen."""
    own = (transfer.record.get("data") or {}).get("overlap") or {}
    found = [sentence(pair, shared) for pair, shared in own.items() if pair == "train/test"]
    overlap = transfer.record.get("overlap") or {}
    for kind, word in (("exact", "are"), ("near", "nearly are")):
        rows = overlap.get(kind) or []
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            found.append(
                f"{len(rows)} of {overlap['test_rows']} test rows {word} among the rows of {overlap['generic']} that "
                f"the pretraining saw (rows {shown}): scores of pretrained arms may be too good"
            )
    return found


def state_warnings(transfer: Transfer) -> list[str]:
    """Runs that failed or have not ended."""
    found = []
    for arm in dict.fromkeys(run.arm for run in transfer.runs):
        failed = [run for run in transfer.runs if run.arm == arm and run.state == "failed"]
        if failed:
            total = sum(run.arm == arm for run in transfer.runs)
            reason = (failed[0].record.get("error") or "no reason was recorded").splitlines()[0]
            found.append(
                f"{len(failed)} of {total} {arm} runs failed; no verdict rests on what is left of it ({reason})"
            )
    open_runs = [run for run in transfer.runs if run.state not in ("done", "failed")]
    if open_runs:
        missing = [f"{arm} at {count}" for arm, count in Counter(run.arm for run in open_runs).items()]
        seeds = sorted({run.seed for run in open_runs})
        found.append(
            f"{len(open_runs)} of {len(transfer.runs)} runs are unfinished and left out ({', '.join(missing)}; seeds "
            f"{', '.join(map(str, seeds))}): verdicts are provisional"
        )
    return found


def control_warnings(transfer: Transfer, report: dict[str, Any]) -> list[str]:
    """Controls that do what only pretraining should do."""
    found = []
    if any(row["arm"] == "shuffled" and row["verdict"] == "helps" for row in report["verdicts"]):
        found.append(
            "shuffled weights help too: some of the gain is the scale of the weights and not what they have learned"
        )
    means = {(row["arm"], row["labels_per_class"]): row["mean"] for row in report["table"]}
    for arm, name in (
        ("trivial", "the most frequent class, or the mean,"),
        ("linear", "a linear model on the raw inputs"),
    ):
        for other in dict.fromkeys(arm for arm, *_ in comparisons(transfer)):
            if other == "shuffled":
                continue
            labels = [
                label
                for label in transfer.labels
                if means.get((arm, label)) is not None
                and means.get((other, label)) is not None
                and transfer.sign * (means[arm, label] - means[other, label]) > 0
            ]
            if labels:
                found.append(f"{name} scores better than {other} with {labels_text(labels)}")
    return found


def convergence_warnings(transfer: Transfer) -> list[str]:
    """Runs of the budget `converged` that were still improving when they had to end."""
    found = []
    for arm in transfer.arms:
        runs = [run for run in transfer.runs if (run.arm, run.budget, run.state) == (arm, "converged", "done")]
        improving = [run for run in runs if is_improving(transfer, run)]
        if improving:
            found.append(
                f"{len(improving)} of {len(runs)} {arm} runs were still improving at the end of budget converged: "
                "raise transfer.converged.most"
            )
    return found


def noise_warnings(transfer: Transfer) -> list[str]:
    """What the intervals leave out."""
    done = next(run for run in transfer.runs if run.state == "done")
    if transfer.scores(done) is not None:
        return []
    name = transfer.metric.removeprefix("test/")
    return [f"{name} is no mean over examples: intervals count the noise of seeds only, and not that of the test split"]


def is_improving(transfer: Transfer, run: Run) -> bool:
    """Whether the best validation of a run came in its last tenth."""
    values = transfer.sign * transfer.series(run, transfer.manifest.metric).to_numpy()
    return len(values) > 0 and int(values.argmax()) >= 0.9 * len(values)
