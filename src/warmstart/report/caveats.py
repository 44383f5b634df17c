"""Warnings at the top of a report, and the checks that they are based on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from warmstart.report import controls
from warmstart.report.headline import test_set
from warmstart.report.leaderboard import mean
from warmstart.report.runs import Labels, Run, Transfer
from warmstart.report.shared_rows import sentence
from warmstart.report.verdicts import compared_rows, comparisons, labels_text, unit_noun
from warmstart.run.lineage import ancestors, parent_run


def checks(transfer: Transfer) -> dict[str, Any]:
    """Return parents, fraction of weights loaded, overlap of the data, and statistics by arm, as plain JSON."""
    transferred = [run for run in transfer.runs if run.record.get("transfer")]
    parents = {base["id"]: base.get("weights_sha256") for base in transfer.bases}
    if not parents:  # the initial weights are not from this transfer
        records = (run.record.get("parent") or {} for run in transferred)
        parents = {one.get("path"): one.get("weights_sha256") for one in records if one.get("path")}
    return {
        "parents": [{"id": name, "weights_sha256": digest} for name, digest in parents.items()],
        "fraction_loaded": min((run.record["transfer"]["fraction"] for run in transferred), default=None),
        "overlap": transfer.record.get("overlap"),
        "arms": [
            statistics_of(transfer, arm, budget) for budget in transfer.budgets for arm in planned(transfer, budget)
        ],
    }


def planned(transfer: Transfer, budget: str) -> list[str]:
    """Return the arms with separate runs at a budget."""
    return [arm for arm in transfer.arms if any((run.arm, run.budget) == (arm, budget) for run in transfer.runs)]


def statistics_of(transfer: Transfer, arm: str, budget: str) -> dict[str, Any]:
    """Return means over the runs of an arm: similarity to pretrained features, overfitting, calibration, steps."""
    runs = [run for run in transfer.runs if (run.arm, run.budget, run.state) == (arm, budget, "done")]
    return {
        "arm": arm,
        "budget": budget,
        "n": len(runs),
        "cka": mean(run.record.get("cka") for run in runs),
        "loss_gap": mean(loss_gap(transfer, run) for run in runs),
        "calibration_error": mean(run.record["metrics"].get("test/calibration_error") for run in runs),
        "steps": mean(run.cost.get("steps") for run in runs),
    }


def loss_gap(transfer: Transfer, run: Run) -> float | None:
    """Return validation loss minus training loss at the end of a run."""
    held_out, training = (transfer.series(run, name) for name in ("val/loss", "train/loss"))
    return float(held_out.iloc[-1] - training.iloc[-1]) if len(held_out) and len(training) else None


def warnings(transfer: Transfer, report: dict[str, Any]) -> list[str]:
    """Return all warnings, most serious first."""
    return [
        *overlap_warnings(transfer),
        *teacher_warnings(transfer),
        *size_warnings(transfer, report),
        *state_warnings(transfer),
        *control_warnings(transfer, report),
        *convergence_warnings(transfer),
        *noise_warnings(transfer),
    ]


def overlap_warnings(transfer: Transfer) -> list[str]:
    """Return warnings about test rows among training or pretraining rows."""
    shared_rows = (transfer.record.get("data") or {}).get("overlap") or {}
    found = [sentence(pair, shared) for pair, shared in shared_rows.items() if pair == "train/test"]
    overlap = transfer.record.get("overlap") or {}
    for kind, one, several in (
        ("exact", "is also a pretraining row", "are also pretraining rows"),
        ("near", "is a near duplicate of a pretraining row", "are near duplicates of pretraining rows"),
    ):
        rows = overlap.get(kind) or []
        relation = one if len(rows) == 1 else several
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            found.append(
                f"{len(rows)} of {overlap['test_rows']} test rows {relation} of {overlap['generic']} (rows {shown}): "
                "scores of pretrained arms may be optimistic"
            )
    return found


def teacher_warnings(transfer: Transfer) -> list[str]:
    """Return a warning for each teacher with labels from which initial weights learned, in any pretraining."""
    records = [*transfer.bases, *(run.record for run in transfer.runs)]
    parents = {parent["path"]: parent for record in records if (parent := record.get("parent"))}
    starts = [run for run in map(parent_run, parents.values()) if run is not None]
    records = [*transfer.bases, *(run.record for start in starts for run in ancestors(start))]
    teachers = [record.get("teacher") or {} for record in records]
    paths = dict.fromkeys(one["path"] for one in teachers if one.get("has_labels"))
    return [
        f"the teacher of the pretraining, {path}, was trained on labels: label counts do not include these"
        for path in paths
    ]


def size_warnings(transfer: Transfer, report: dict[str, Any]) -> list[str]:
    """Return a warning if the number of test rows alone rules out a verdict of the headline's comparison.

    That is: it cannot tell, and no number of seeds has a power of 80 % for the observed difference and the margin.
    """
    same = compared_rows(report)
    ruled_out = [
        row
        for row in same
        if row["verdict"] == "cannot tell"
        and not row["flag"]
        and row["detectable"] is not None
        and row["detectable"] > max(abs(row["difference"]), transfer.rules["margin"])
    ]
    if not ruled_out:
        return []
    smallest, width = min(row["detectable"] for row in ruled_out), transfer.bounds[1] - transfer.bounds[0]
    size = f"{test_set(transfer).removeprefix(', on ')}"
    where = "" if len(ruled_out) == len(same) else f" with {labels_text([row['labels'] for row in ruled_out])}"
    seeds = f"any number of {unit_noun(transfer.rules)}"
    if smallest >= width:
        return [f"{size}: no difference is detected{where} with a probability of 80 %, with {seeds}"]
    amount = f"{100 * smallest:.2g} points" if width == 1 else f"{smallest:.2g} {transfer.metric.removeprefix('test/')}"
    return [f"{size}: differences below {amount} are detected{where} with a probability below 80 %, with {seeds}"]


def state_warnings(transfer: Transfer) -> list[str]:
    """Return warnings about failed and unfinished runs."""
    found = []
    for arm in dict.fromkeys(run.arm for run in transfer.runs):
        failed = [run for run in transfer.runs if run.arm == arm and run.state == "failed"]
        if failed:
            total = sum(run.arm == arm for run in transfer.runs)
            reason = (failed[0].record.get("error") or "no reason was recorded").splitlines()[0]
            found.append(f"{len(failed)} of {total} {arm} runs failed ({reason}); comparisons with it are not judged")
    unfinished = [run for run in transfer.runs if run.state not in ("done", "failed")]
    if unfinished:
        missing = [f"{arm} at {count}" for arm, count in Counter(run.arm for run in unfinished).items()]
        seeds = sorted({run.seed for run in unfinished})
        found.append(
            f"{len(unfinished)} of {len(transfer.runs)} runs {'is' if len(unfinished) == 1 else 'are'} "
            f"unfinished and excluded ({', '.join(missing)}; seeds "
            f"{', '.join(map(str, seeds))}): verdicts are provisional"
        )
    return found


def control_warnings(transfer: Transfer, report: dict[str, Any]) -> list[str]:
    """Return warnings about controls that perform as well as pretraining."""
    found, nodes = [], transfer.config["arm"]
    if any(row["arm"] == "shuffled" and row["verdict"] == "helps" for row in report["verdicts"]):
        found.append(
            "shuffled weights also help: part of the gain comes from the scale of the weights, not from features"
        )
    for other in dict.fromkeys(comparison.arm for comparison in comparisons(transfer)):
        better = {arm: better_at(transfer, report, arm, other) for arm in transfer.arms if is_control(nodes[arm])}
        texts = [f"{arm} with {labels_text(labels)}" for arm, labels in better.items() if labels]
        if texts and other != "shuffled":
            found.append(f"baselines that score better than {other}: {'; '.join(texts)}")
    return found


def is_control(node: dict[str, Any]) -> bool:
    """Return whether an arm is a baseline that does not use the pretrained weights."""
    return "baseline" in node and controls.role(node) != controls.UNTOUCHED


def better_at(transfer: Transfer, report: dict[str, Any], arm: str, other: str) -> list[Labels]:
    """Return the label counts at which an arm has a better mean score than another one."""
    means = {(row["arm"], row["labels_per_class"]): row["mean"] for row in report["table"]}
    pairs = {labels: (means.get((arm, labels)), means.get((other, labels))) for labels in transfer.labels}
    return [labels for labels, (a, b) in pairs.items() if None not in (a, b) and transfer.sign * (a - b) > 0]


def convergence_warnings(transfer: Transfer) -> list[str]:
    """Return warnings about runs of `converged`, or of arms with a length, that were still improving at their end."""
    found = []
    for arm in transfer.arms:
        is_long = "length" in transfer.config["arm"][arm]
        budgets = transfer.budgets if is_long else ["converged"]
        runs = [run for run in transfer.runs if run.arm == arm and run.budget in budgets and run.state == "done"]
        improving = [run for run in runs if is_improving(transfer, run)]
        if improving:
            end = "their training" if is_long else "budget converged"
            setting = f"arm.{arm}.length" if is_long else "transfer.converged.most"
            found.append(
                f"{len(improving)} of {len(runs)} {arm} runs {'was' if len(improving) == 1 else 'were'} still "
                f"improving at the end of {end}: increase {setting}"
            )
    return found


def noise_warnings(transfer: Transfer) -> list[str]:
    """Return a warning if intervals exclude the variance of the test split."""
    done = next(run for run in transfer.runs if run.state == "done")
    if transfer.scores(done) is not None:
        return []
    name = transfer.metric.removeprefix("test/")
    return [f"{name} is not a mean over examples: intervals include the variance of seeds, not that of the test split"]


def is_improving(transfer: Transfer, run: Run) -> bool:
    """Return whether the best validation of a run is in the last tenth of its validations."""
    values = transfer.sign * transfer.series(run, transfer.manifest.metric).to_numpy()
    return len(values) > 0 and int(values.argmax()) >= 0.9 * len(values)
