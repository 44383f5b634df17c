"""Select a strategy and learning rate by successive halving on the training labels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple

from scipy import stats

from warmstart.core.errors import UserError
from warmstart.core.protocols import Strategy
from warmstart.core.ranges import PositiveFloat

DEFAULTS = ("lp_ft", "full")  # selected if no difference is significant; the second if the first cannot train
REDUCTION = 4  # factor by which a rung reduces the candidates
LAST_SHARE = 2 / 3  # share of the cost for the last rung, whose jobs should be as long as possible
FOLDS = 3  # folds for evaluation
MAX_FOLD_ROWS = 2000  # more rows in a fold improve the estimate little
CONFIDENCE = 0.9
MIN_RUN_STEPS = 16  # shorter runs have no selection
MIN_JOB_STEPS = 4


class Entry(NamedTuple):
    """A candidate: a strategy with a multiple of optimizer.lr."""

    strategy: str
    rate: float


class Rung(NamedTuple):
    """A round of successive halving: train `size` candidates for `steps` and evaluate them on each of the folds."""

    size: int
    folds: tuple[int, ...]
    steps: int


class Decision(NamedTuple):
    """The selected candidate, the reason as text, and the paired gains over folds that the decision uses, if any."""

    entry: Entry
    why: str
    gain: dict[str, Any] | None = None


Affordable = Callable[[float], int]
Measure = Callable[[Rung, list[Entry]], Mapping[Entry, "list[float] | None"]]


class Auto(Strategy):
    """Successive halving over candidates, then a paired comparison of the best one with the default strategy.

    A stage calls `select`, then finetunes with the selected strategy. A rung trains each candidate for some steps and
    keeps the best quarter. Two thirds of the cost go to the last rung, which compares the best lp_ft candidate with the
    best candidate of another strategy on the same folds. The other one is selected only if the lower bound of a
    one-sided 90 % confidence interval of its mean gain is above 0; else lp_ft, or full if lp_ft cannot train. This rule
    was fixed before it was evaluated. The interval is that of a t test, corrected for the overlap of training rows
    between folds.

    Sources: Jamieson and Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    https://arxiv.org/abs/1502.07943; Nadeau and Bengio (2003), "Inference for the Generalization Error".

    Args:
        options: strategies by name.
        candidates: names of the strategies to compare.
        rates: multiples of optimizer.lr to try for each strategy.
        cost: maximum number of training examples of the selection, divided by those of the final run.
    """

    selects_strategy: ClassVar = True
    evaluated_folds: ClassVar = FOLDS

    def __init__(
        self, options: dict[str, Any], candidates: list[str], rates: list[PositiveFloat], cost: PositiveFloat = 3.0
    ):
        known = [name for name, strategy in options.items() if not strategy.selects_strategy]
        for name in candidates:
            if name not in known:
                raise UserError(f"strategy.candidates: unknown strategy {name}; choose from {', '.join(known)}")
        if not candidates or len(set(candidates)) < len(candidates):
            raise UserError(f"strategy.candidates={candidates}: give distinct names from {', '.join(known)}")
        if not rates or len(set(rates)) < len(rates):
            raise UserError(f"strategy.rates={rates}: give distinct multiples of optimizer.lr, such as [0.3,1,3]")
        self.candidates, self.cost = candidates, cost
        self.rates = sorted(rates, key=log_distance)

    def select(
        self, steps: int, examples: int, affordable: Affordable, folds: int, mode: str, measure: Measure
    ) -> Decision:
        """Select a candidate; without training if the final run is too short or the rows cannot be split into folds.

        Args:
            steps: steps of the final run.
            examples: training examples of the final run.
            affordable: maps a number of training examples to the number of steps of a job that uses at most these.
            folds: number of folds of the labelled rows; below 2 if they cannot be split.
            mode: max or min: whether larger or smaller scores are better.
            measure: trains and evaluates the candidates of a rung.

        Raises:
            UserError: no candidate could be trained, or the cost is too low.
        """
        entries = [Entry(name, rate) for rate in self.rates for name in self.candidates]
        rungs = self.plan(steps, examples, affordable) if folds >= 2 else []
        if not rungs:
            few = "a class has only one labelled row, or one cluster"
            why = few if folds < 2 else f"a run of {steps} steps is too short"
            if len(entries) == 1:
                why = "it is the only candidate"
            default = self.default(entries)
            return Decision(
                next(entry for entry in entries if entry.strategy == default), f"no selection, because {why}"
            )
        entries = entries[: rungs[0].size]
        for rung, following in zip_longest(rungs, rungs[1:]):
            scores = measure(rung, entries)
            trained = ranked(scores, mode)
            if not trained:
                raise UserError(
                    "strategy=auto: no candidate could be trained; see selection/candidates.csv in the run folder"
                )
            entries = self.promote(trained, following.size) if following else trained
        return self.decide(trained, scores, mode, folds)

    def fold_count(self, rows: int, most: int) -> int:
        """Return the number of folds for a number of labelled rows, at most `most`."""
        return min(max(FOLDS, math.ceil(rows / MAX_FOLD_ROWS)), most)

    def plan(self, steps: int, examples: int, affordable: Affordable) -> list[Rung]:
        """Return the rungs, with arguments as in `select`; none if the final run is too short or has one candidate.

        If the cost is too low for all rates, those farthest from 1 are left out.

        Raises:
            UserError: the cost is too low for a single rate.
        """
        strategies = len(self.candidates)
        if steps < MIN_RUN_STEPS or strategies * len(self.rates) == 1:
            return []
        budget = self.cost * examples
        for rates in range(len(self.rates), 0, -1):
            rungs = self._rungs(budget, strategies * rates, steps, affordable)
            if all(rung.steps >= MIN_JOB_STEPS for rung in rungs):
                return rungs
        raise UserError(
            f"strategy.cost={self.cost} allows {affordable(budget)} steps for a run of {steps} steps, too few "
            f"for {strategies} strategies with {MIN_JOB_STEPS} steps or more each: raise it, or use fewer "
            "strategy.candidates"
        )

    def _rungs(self, budget: float, size: int, most: int, affordable: Affordable) -> list[Rung]:
        has_comparison = len(self.candidates) > 1
        sizes = []
        while size > (2 if has_comparison else 1):
            sizes.append(size)
            size = math.ceil(size / REDUCTION)
        last = budget * (LAST_SHARE if sizes else 1.0) if has_comparison else 0.0
        share = (budget - last) / max(1, len(sizes))
        rungs = [Rung(size, (index % FOLDS,), min(most, affordable(share / size))) for index, size in enumerate(sizes)]
        if has_comparison:
            rungs.append(Rung(2, tuple(range(FOLDS)), min(most, affordable(last / (2 * FOLDS)))))
        return rungs

    def default(self, entries: Sequence[Entry]) -> str:
        """Return the strategy to use if no difference is significant; `entries` are sorted, best first."""
        names = {entry.strategy for entry in entries}
        return next((name for name in DEFAULTS if name in names), entries[0].strategy)

    def promote(self, entries: Sequence[Entry], size: int) -> list[Entry]:
        """Return the best `size` of sorted entries, among them one of the default strategy and one of another."""
        default = self.default(entries)
        groups = ([entry for entry in entries if same == (entry.strategy == default)] for same in (True, False))
        best = [group[0] for group in groups if group]
        rest = [entry for entry in entries if entry not in best]
        return sorted([*best, *rest][:size], key=entries.index)

    def decide(
        self, entries: Sequence[Entry], scores: Mapping[Entry, Sequence[float]], mode: str, folds: int
    ) -> Decision:
        """Compare the best entry of another strategy with the best entry of the default strategy.

        Args:
            entries: entries of the last rung that could be trained, best first.
            scores: scores of each entry, one per fold.
            mode: max or min: whether larger or smaller scores are better.
            folds: number of folds of the labelled rows.
        """
        default = self.default(entries)
        own = next(entry for entry in entries if entry.strategy == default)
        other = next((entry for entry in entries if entry.strategy != default), None)
        if other is None:
            return Decision(own, "there is no other candidate that could be trained")
        sign = 1 if mode == "max" else -1
        gains = [sign * (theirs - ours) for theirs, ours in zip(scores[other], scores[own], strict=True)]
        mean, low = statistics.fmean(gains), lower_bound(gains, 1 / (folds - 1))
        where = f"on each of {len(gains)} folds" if low is None else f"on average over {len(gains)} folds"
        bound = "" if low is None else f", {low:+.3g} or more with 90 % confidence"
        result = f"{other.strategy} against {default}: {mean:+.3g} {where}{bound}"
        gain = {"of": other._asdict(), "over": own._asdict(), "by_fold": gains, "mean": mean, "low": low}
        if low is not None and low > 0:
            return Decision(other, result, gain)
        return Decision(own, f"no other strategy is significantly better ({result})", gain)


def log_distance(rate: float) -> float:
    """Return the distance of a multiple from 1 on a log scale."""
    return abs(math.log(rate))


def ranked(scores: Mapping[Entry, Sequence[float] | None], mode: str) -> list[Entry]:
    """Sort the entries that have scores by their mean, best first; ties by the distance of the rate from 1."""
    sign = -1 if mode == "max" else 1
    scored = [entry for entry, values in scores.items() if values is not None]
    return sorted(scored, key=lambda entry: (sign * statistics.fmean(scores[entry]), log_distance(entry.rate)))


def lower_bound(gains: Sequence[float], ratio: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the lower bound of the one-sided confidence interval of the mean gain over folds.

    None if the variance cannot be estimated: with one gain, or with equal gains, which occur with few rows.

    Args:
        gains: gains, one per fold.
        ratio: number of validation rows divided by number of training rows.
        confidence: of the interval.
    """
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    if not spread:
        return None
    quantile = stats.t.ppf(confidence, len(gains) - 1)
    return statistics.fmean(gains) - float(quantile) * spread * math.sqrt(1 / len(gains) + ratio)
