"""Print tables that compare finetuning strategies over several transfers with transfer.arms=strategies.

    python scripts/strategies.py outputs/transfer/digits/ID outputs/transfer/sst2/ID > table.md

Every number is read from run folders. A cell is a transfer at one label count; cells with unfinished arms are excluded.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from warmstart.report.costs import forgotten
from warmstart.report.runs import Labels, Run, Transfer, read_transfer
from warmstart.report.verdicts import interval, pairs

CONTROL, FULL, CHOOSER, CAREFUL = "scratch", "full", "auto", "lp_ft"


@dataclass(frozen=True)
class Cell:
    """A transfer at one label count."""

    transfer: Transfer
    labels: Labels

    @property
    def name(self) -> str:
        """Experiment and label count."""
        return f"{self.transfer.manifest.experiment} {self.labels}"

    def runs(self, arm: str) -> list[Run]:
        """The runs of an arm that are done, by seed."""
        return [run for run in self.transfer.group(arm, "steps", self.labels) if run.test is not None]

    def mean(self, arm: str) -> float | None:
        """The arm's mean test score, more being better."""
        values = [run.test for run in self.runs(arm)]
        return self.transfer.sign * statistics.fmean(values) if values else None

    @property
    def fixed(self) -> dict[str, float]:
        """The mean test score of each fixed strategy."""
        arms = [arm for arm in self.transfer.arms if arm not in (CONTROL, CHOOSER)]
        return {arm: mean for arm in arms if (mean := self.mean(arm)) is not None}

    @property
    def shifts(self) -> list[str]:
        """Names of the shifted test splits."""
        names = {part for run in self.transfer.runs for part in metric_names(run) if part.startswith("test_")}
        return sorted({name.partition("/")[0] for name in names})

    def shifted(self, arm: str, shift: str) -> list[float]:
        """The arm's scores on a shifted test split, by seed."""
        name = self.transfer.metric.replace("test/", f"{shift}/")
        return [run.record["metrics"][name] for run in self.runs(arm) if name in metric_names(run)]


def metric_names(run: Run) -> Iterable[str]:
    """What was measured of a run."""
    return run.record.get("metrics") or {}


def lines(columns: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    texts = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in texts) + "\n"


def scores(cells: list[Cell], arms: list[str]) -> str:
    """Mean and 95 % interval by arm and cell, in percent; the best fixed strategy of a cell is bold."""
    rows = []
    for arm in arms:
        row = [f"`{arm}`"]
        for cell in cells:
            done = cell.runs(arm)
            low, high = interval(cell.transfer, done)
            if low is None:
                row.append("-")
                continue
            best = cell.fixed.get(arm) == max(cell.fixed.values())
            mean = f"{100 * statistics.fmean(run.test for run in done):.1f}"
            row.append(f"{f'**{mean}**' if best else mean} ({100 * low:.1f} to {100 * high:.1f})")
        rows.append(row)
    return lines(["", *(cell.name for cell in cells)], rows)


def behind(cells: list[Cell], arms: list[str]) -> str:
    """How many points each arm is behind the best fixed strategy of a cell, over the cells that have it."""
    rows = []
    for arm in arms:
        gaps = [100 * (max(cell.fixed.values()) - mean) for cell in cells if (mean := cell.mean(arm)) is not None]
        worst = sum(cell.mean(arm) is not None and cell.mean(arm) <= min(cell.fixed.values()) for cell in cells)
        if gaps:
            rows.append((statistics.fmean(gaps), [f"`{arm}`", f"{max(gaps):.1f}", str(worst), str(len(gaps))]))
    ordered = [[row[0], f"{gap:.2f}", *row[1:]] for gap, row in sorted(rows, key=lambda pair: pair[0])]
    return lines(["", "points behind, on average", "at most", "cells where it is the worst", "cells"], ordered)


def under_shift(cells: list[Cell], arms: list[str]) -> str:
    """Mean and standard deviation over seeds on each shifted test split, in percent."""
    places = [(cell, shift) for cell in cells for shift in cell.shifts]
    rows = []
    for arm in arms:
        row = [f"`{arm}`"]
        for cell, shift in places:
            values = [100 * value for value in cell.shifted(arm, shift)]
            row.append(f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else "-")
        rows.append(row)
    return lines(["", *(f"{cell.name}, {shift.removeprefix('test_')}" for cell, shift in places)], rows)


def careful(cells: list[Cell]) -> str:
    """lp_ft minus full, paired by seed, on the test split and on the shifted ones, with 95 % t intervals over seeds."""
    rows = []
    for cell in cells:
        both = pairs(cell.runs(CAREFUL), cell.runs(FULL))
        for part in ("test", *cell.shifts):
            name = cell.transfer.metric.replace("test/", f"{part}/")
            values = [[run.record["metrics"].get(name) for run in pair] for pair in both]
            differences = [100 * cell.transfer.sign * (own - full) for own, full in values if None not in (own, full)]
            if len(differences) < 2:
                continue
            mean, error = statistics.fmean(differences), stats.sem(differences)
            reach = stats.t.ppf(0.975, len(differences) - 1) * error
            rows.append(
                [cell.name, part.removeprefix("test_"), f"{mean:+.1f}", f"{mean - reach:+.1f} to {mean + reach:+.1f}"]
            )
    return lines(["cell", "test split", "lp_ft minus full, points", "95 % interval"], rows)


def costs(cells: list[Cell], arms: list[str]) -> str:
    """What a run of each arm costs, means over seeds, at the last label count of each transfer."""
    last = {id(cell.transfer): cell for cell in cells}.values()
    rows = []
    for cell in last:
        for arm in arms:
            done = cell.runs(arm)
            if not done or "trained_parameters" not in done[0].cost:
                continue

            def mean(name: str, unit: float, form: str, done: list[Run] = done) -> str:
                return format(statistics.fmean(run.cost[name] for run in done) / unit, form)

            changes = [change for run in done if (change := forgotten(run, "val/loss")) is not None]
            worse = statistics.fmean(changes) if changes else None
            row = [cell.name, f"`{arm}`", mean("trained_parameters", 1, ",.0f"), mean("bytes_per_task", 1e6, ",.3f")]
            row += [mean("peak_memory_mb", 1, ",.0f"), mean("seconds", 1, ".1f")]
            rows.append([*row, "-" if worse is None else f"{worse:+.3g}"])
    columns = ["cell", "", "parameters trained", "MB per task", "peak memory, MB", "seconds", "forgetting"]
    return lines(columns, rows)


def main() -> None:
    """Print all tables for the transfers that the command line names."""
    transfers = [read_transfer(Path(word)) for word in sys.argv[1:]]
    cells = [Cell(transfer, labels) for transfer in transfers for labels in transfer.labels]
    cells = [cell for cell in cells if all(len(cell.runs(arm)) > 1 for arm in cell.transfer.arms)]
    arms = list(dict.fromkeys(arm for transfer in transfers for arm in transfer.arms))
    print("## Scores\n\n" + scores(cells, arms))
    print("## How far behind the best\n\n" + behind(cells, arms))
    print("## Under shift\n\n" + under_shift(cells, arms))
    print("## Probing first, under shift\n\n" + careful(cells))
    print("## Costs\n\n" + costs(cells, arms))
    for transfer in transfers:
        print(f"    python train.py {' '.join(transfer.manifest.words)}")


if __name__ == "__main__":
    main()
