"""Ranking of the starts of a transfer (transfer.starts), their selection, and how well the screen predicted it."""

from __future__ import annotations

import statistics
from typing import Any

from scipy import stats

from warmstart.core.screen import number
from warmstart.report import controls, paired
from warmstart.report.controls import STRONGEST, UNTOUCHED
from warmstart.report.figure import tick
from warmstart.report.headline import as_sentences, limit, test_set
from warmstart.report.looks import looks_of
from warmstart.report.runs import Labels, Run, Transfer
from warmstart.report.section import Section, Table, section
from warmstart.report.verdicts import BUDGET_PHRASES, difference_interval, estimate, labels_text, listed, pairs

CONTROL = "scratch"
FAILED = "failed"  # instead of the verdict of a comparison with failed runs
PREDICATES = {
    "hurts": "is worse than {}",
    "helps": "beats {}",
    "equivalent": "is equivalent within the margin to {}",
    "cannot tell": "is not significantly different from {}",
    FAILED: "is not judged against {}, since runs failed,",
}
TIES = {  # of the best start
    "cannot tell": "not significantly different from {}",
    "equivalent": "equivalent within the margin to {}",
    FAILED: "not judged against {}, since runs failed",
    None: "not judged against {}, since paired runs are too few",
}
NOTES = {
    "hurts": "worse",
    "helps": "better",
    "equivalent": "equivalent to the best",
    "cannot tell": "not significantly different from the best",
    FAILED: "not judged: runs failed",
    None: "no verdict",
}
FEWEST = 3  # starts for a rank correlation
MEASURES = {"knn": "k-NN", "logme": "LogME"}
Row = dict[str, Any]


def summarize(transfer: Transfer, judged: list[Row]) -> Row | None:
    """Return ranking, selection and rank correlations as plain JSON; None without transfer.starts.

    Args:
        transfer: with all its runs.
        judged: the verdicts, which compare all pairs of starts, and the starts with controls.
    """
    if transfer.starts is None:
        return None
    record, budget = transfer.starts, transfer.budgets[0]
    names = [name for name in record["given"] if name in transfer.arms]
    ranking = [rank(transfer, judged, names, budget, labels) for labels in transfer.labels]
    return {
        "given": record["given"],
        "budget": budget,
        "ranking": ranking,
        "comparisons": len(judged),
        "selection": selection(record),
        "correlation": correlations(transfer, record, ranking),
    }


def rank(transfer: Transfer, judged: list[Row], names: list[str], budget: str, labels: Labels) -> Row:
    """Return the starts at a label count, best first, each compared with the best.

    The intervals hold simultaneously over all comparisons of the report (Bonferroni); p values are those of the
    verdicts (Holm). A start is `apart` if it is significantly worse than the best.
    """
    groups = {name: [run for run in transfer.group(name, budget, labels) if run.test is not None] for name in names}
    means = {name: statistics.fmean(run.test for run in group) for name, group in groups.items() if group}
    order = sorted(means, key=lambda name: -transfer.sign * means[name])
    rows: list[Row] = []
    for name in order:
        row = {"start": name, "mean": means[name], "difference": None, "interval": [None, None], "p": None}
        row |= {"verdict": None, "apart": False}
        if name != order[0] and (found := pairs(groups[name], groups[order[0]])):
            difference = simultaneous(transfer, judged, found)
            verdict, p = compared(judged, name, order[0], budget, labels)
            row |= {"difference": difference.difference, "interval": difference_interval(transfer, difference), "p": p}
            row |= {"verdict": verdict, "apart": verdict == "hurts"}
        rows.append(row)
    return {"labels": labels, "starts": rows}


def simultaneous(transfer: Transfer, judged: list[Row], found: list[tuple[Run, Run]]) -> paired.Paired:
    """Estimate the difference of pairs of runs, with an interval that holds for all comparisons and at all looks."""
    return estimate(transfer, found, looks_of(transfer).level(paired.ALPHA / max(1, len(judged))))


def compared(judged: list[Row], name: str, other: str, budget: str, labels: Labels) -> tuple[str | None, float | None]:
    """Return the verdict on a start against another arm, FAILED with failed runs, and the adjusted p value."""
    opposite = {"helps": "hurts", "hurts": "helps"}
    for row in judged:
        if (row["budget"], row["labels"]) == (budget, labels) and {row["arm"], row["against"]} == {name, other}:
            verdict = row["verdict"] if row["arm"] == name else opposite.get(row["verdict"], row["verdict"])
            return (FAILED if row["flag"] else verdict), row["p_holm"]
    return None, None


def selection(record: Row) -> Row:
    """Return screen, validation scores by rung, and reason by start, and the cost in finetunings."""
    screen, rungs = record["screen"], record["rungs"]
    rows = [
        {
            "start": name,
            "knn": screen.get(name, {}).get("knn"),
            "logme": screen.get(name, {}).get("logme"),
            "screen_rank": screen_ranks(screen).get(name),
            "validation": [statistics.fmean(r["scores"][name]) if name in r["scores"] else None for r in rungs],
            "cost": sum(r["spent"].get(name, 0) for r in rungs) / record["examples"] if rungs else 0.0,
            "excluded": record["excluded"].get(name, {}).get("reason"),
        }
        for name in record["given"]
    ]
    return {
        "starts": sorted(rows, key=lambda row: (row["screen_rank"] is None, row["screen_rank"])),
        "labels": record["labels"],
        "why": record["why"],
        "cost": sum(row["cost"] for row in rows),
        "bound": record.get("bound"),
        "seconds": sum(r["seconds"] for r in rungs),
        "screen_seconds": sum(one["seconds"] for one in screen.values()),
    }


def screen_ranks(screen: dict[str, Row]) -> dict[str, float]:
    """Return the mean of the ranks in both measures by start; 1 is best."""
    ranks = [stats.rankdata([-one[key] for one in screen.values()]) for key in ("knn", "logme")]
    return {name: float(one + other) / 2 for name, one, other in zip(screen, *ranks)}


def correlations(transfer: Transfer, record: Row, ranking: list[Row]) -> list[Row]:
    """Return the rank correlations of the screen with the mean test scores by label count.

    If starts were excluded, also with the validation scores of the first rung, of which they are part.
    """
    screen = record["screen"]
    measures = {"screen": {name: -value for name, value in screen_ranks(screen).items()}}
    measures |= {key: {name: one[key] for name, one in screen.items()} for key in ("knn", "logme")}
    finals = [
        {"of": "test", "labels": one["labels"], "scores": {row["start"]: row["mean"] for row in one["starts"]}}
        for one in ranking
    ]
    if record["excluded"] and record["rungs"]:
        scores = {name: statistics.fmean(values) for name, values in record["rungs"][0]["scores"].items()}
        finals.append({"of": "validation", "labels": record["labels"], "scores": scores})
    return [
        {
            "of": final["of"],
            "labels": final["labels"],
            **{key: correlation(transfer.sign, values, final["scores"]) for key, values in measures.items()},
        }
        for final in finals
    ]


def correlation(sign: int, predicted: dict[str, float], scores: dict[str, float]) -> Row:
    """Return Spearman's and Kendall's rank correlation over the starts that have both values; None below FEWEST."""
    names = [name for name in scores if name in predicted]
    values = [[predicted[name] for name in names], [sign * scores[name] for name in names]]
    if len(names) < FEWEST or any(len(set(one)) == 1 for one in values):
        return {"n": len(names), "spearman": None, "kendall": None}
    spearman, kendall = stats.spearmanr(*values).statistic, stats.kendalltau(*values).statistic
    return {"n": len(names), "spearman": float(spearman), "kendall": float(kendall)}


def headline(transfer: Transfer, judged: list[Row], summary: Row) -> Row:
    """Return verdict and sentence: the best starts, and whether the best one beats random weights and the controls.

    The verdict is that of the start with the highest mean over label counts, other than `scratch`, against `scratch`:
    helps if it helps at one label count or more and hurts at none, and so on, as for other transfers. The sentence on
    the strongest control comes first if the start is worse.
    """
    budget = summary["budget"]
    found = {"verdict": None, "arm": None, "against": None, "budget": budget}
    ranking = [one for one in summary["ranking"] if one["starts"]]
    has_verdict, leading = best_starts(transfer, judged, summary)
    if not has_verdict:
        return {**found, **as_sentences([leading])}
    names = [name for name in summary["given"] if name in transfer.arms and name != CONTROL]
    best = max(names, key=lambda name: statistics.fmean(scores_of(transfer, ranking, name) or [float("-inf")]))
    verdicts, against_scratch = {}, "Random weights (scratch) are not among the starts."
    if CONTROL in transfer.arms:
        other = dict.fromkeys([one["labels"] for one in ranking], CONTROL)
        verdicts, text = judgement(transfer, judged, best, CONTROL, other, budget)
        against_scratch = f"{text}."
        words = set(verdicts.values())
        verdict = "equivalent" if words == {"equivalent"} else "cannot tell"
        if ("helps" in words) != ("hurts" in words):
            verdict = "helps" if "helps" in words else "hurts"
        found |= {"verdict": verdict, "arm": best, "against": CONTROL}
    is_worse, strongest = against_best(transfer, judged, best, budget, STRONGEST)
    _, untouched = against_best(transfer, judged, best, budget, UNTOUCHED)
    main = [leading, against_scratch]
    texts = [strongest, *main, untouched] if is_worse else [*main, strongest, untouched]
    return {**found, **as_sentences([text for text in texts if text])}


def best_starts(transfer: Transfer, judged: list[Row], summary: Row) -> tuple[bool, str]:
    """Return whether there are seeds enough for verdicts on the starts, and the sentence on the best of them."""
    budget = summary["budget"]
    ranking = [one for one in summary["ranking"] if one["starts"]]
    rows = [row for row in judged if row["budget"] == budget and {row["arm"], row["against"]} <= set(summary["given"])]
    n = min((row["n"] for row in rows), default=0)
    if not ranking or n < paired.MIN_UNITS:
        leading = f" Highest mean {BUDGET_PHRASES[budget]}: {leaders(ranking)}." if ranking else ""
        unit = "seed" if transfer.rules["pretrain_seeds"] == 1 else "pretraining"
        seeds = f"{n} paired {f'{unit} is' if n == 1 else f'{unit}s are'} too few"
        return False, f"No verdict on the best start: {seeds}; at least {paired.MIN_UNITS} are needed.{leading}"
    found = "; ".join(clauses(transfer, ranking))
    return True, f"Best start, {BUDGET_PHRASES[budget]}{test_set(transfer)}: {found}{limit(transfer)}."


def against_best(transfer: Transfer, judged: list[Row], name: str, budget: str, role: str) -> tuple[bool, str | None]:
    """Return whether a start is worse than the best arm of a role at a label count, and the sentence on it.

    The sentence is None without such an arm, or without a verdict on all label counts.
    """
    best = controls.selected(transfer, name, budget)[role]
    if not best:
        return False, None
    arms = list(dict.fromkeys(best.values()))
    if arms == [CONTROL]:
        several = len(controls.candidates(transfer, budget, role)) > 1
        return False, f"{CONTROL} is the strongest control." if several else None
    labels = {arm: labels_text([count for count, one in best.items() if one == arm]) for arm in arms}
    named = ", ".join(f"{arm} with {labels[arm]}" for arm in arms) if len(arms) > 1 else arms[0]
    what = f"the {controls.NAMES[role]} ({named})"
    verdicts, text = judgement(transfer, judged, name, what, best, budget)
    if None in verdicts.values():
        return False, None
    is_worse = any(verdict == "hurts" and best[count] != CONTROL for count, verdict in verdicts.items())
    return is_worse, f"{'Finetuned, ' if role == UNTOUCHED else ''}{text}."


def judgement(
    transfer: Transfer, judged: list[Row], name: str, what: str, others: dict[Labels, str], budget: str
) -> tuple[dict[Labels, str | None], str]:
    """Return the verdicts on a start by label count, and a clause for each verdict with the largest difference.

    Args:
        name: of the start.
        what: the arm that it is compared with, as text.
        others: name of the other arm by label count.
    """
    verdicts = {count: compared(judged, name, other, budget, count)[0] for count, other in others.items()}
    found = []
    for word, predicate in PREDICATES.items():
        labels = {count: others[count] for count, verdict in verdicts.items() if verdict == word}
        if labels:
            amount = "" if word == FAILED else f" ({largest(transfer, judged, name, labels, budget)})"
            found.append(f"{predicate.format('it' if found else what)} with {labels_text(list(labels))}{amount}")
    return verdicts, f"{name} {'; '.join(found) or f'is not judged against {what}'}"


def leaders(ranking: list[Row]) -> str:
    """Return the start with the best mean by label count as text."""
    best = [one["starts"][0]["start"] for one in ranking]
    grouped = {name: [one["labels"] for one, first in zip(ranking, best) if first == name] for name in best}
    return "; ".join(f"{name} with {labels_text(labels)}" for name, labels in grouped.items())


def clauses(transfer: Transfer, ranking: list[Row]) -> list[str]:
    """Return the best starts as text, one clause for the label counts at which they are the same."""
    metric = transfer.metric.removeprefix("test/")
    groups: dict[tuple[tuple[str, str | None], ...], list[Row]] = {}
    for one in ranking:
        key = tuple((row["start"], row["verdict"]) for row in one["starts"] if not row["apart"])
        groups.setdefault(key, []).append(one)
    found = []
    for ((first, _), *others), rows in groups.items():
        where = f"with {labels_text([one['labels'] for one in rows])}"
        last = rows[-1]
        at = f" at {tick(last['labels'])}" if len(rows) > 1 else ""
        best = f"{metric} {number(last['starts'][0]['mean'])}{at}"
        ties = [
            text.format(listed(names))
            for verdict, text in TIES.items()
            if (names := [name for name, one in others if one == verdict])
        ]
        lead = ""
        if not others and len(last["starts"]) > 1:
            following = last["starts"][1]
            bounds = [-bound for bound in reversed(following["interval"])]
            lead = ", " + difference_text(transfer, -following["difference"], bounds, f" over {following['start']}")
        found.append(", ".join([f"{first} {where} ({best}{lead})", *ties]))
    return found


def difference_text(transfer: Transfer, difference: float, bounds: list[float], where: str) -> str:
    """Return a difference with its simultaneous interval as text."""
    better = "" if transfer.sign == 1 else ", where positive is better"
    return f"{difference:+.3g}{where}, simultaneous 95 % interval {bounds[0]:+.3g} to {bounds[1]:+.3g}{better}"


def scores_of(transfer: Transfer, ranking: list[Row], name: str) -> list[float]:
    """Return the mean scores of a start by label count; higher is better."""
    return [transfer.sign * row["mean"] for one in ranking for row in one["starts"] if row["start"] == name]


def largest(transfer: Transfer, judged: list[Row], name: str, others: dict[Labels, str], budget: str) -> str:
    """Return the largest difference to the other arm of a label count, with its simultaneous interval, as text."""
    estimates = {}
    for count, other in others.items():
        if found := pairs(*(transfer.group(arm, budget, count) for arm in (name, other))):
            estimates[count] = simultaneous(transfer, judged, found)
    count = max(estimates, key=lambda count: abs(estimates[count].difference))
    one = estimates[count]
    where = f" at {tick(count)}" if len(others) > 1 else ""
    return difference_text(transfer, one.difference, difference_interval(transfer, one), where)


def ranking_table(summary: Row) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the ranking."""
    columns = [
        "labels",
        "rank",
        "start",
        "mean",
        "difference to the best",
        "simultaneous 95 % interval",
        "p (Holm)",
        "",
    ]
    lines = []
    for one in summary["ranking"]:
        for index, row in enumerate(one["starts"]):
            low, high = row["interval"]
            note = NOTES[row["verdict"]] if index else "best"
            lines.append(
                [
                    *(tick(one["labels"]), str(index + 1), row["start"], number(row["mean"])),
                    "-" if row["difference"] is None else f"{row['difference']:+.4f}",
                    "-" if low is None else f"{low:+.4f} to {high:+.4f}",
                    "-" if row["p"] is None else f"{row['p']:.2g}",
                    note,
                ]
            )
    return columns, lines


def selection_table(given: dict[str, str], found: Row) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of screen and selection, in the order of the screen."""
    rungs = max((len(row["validation"]) for row in found["starts"]), default=0)
    columns = [
        "start",
        "initial weights",
        "k-NN",
        "LogME",
        *(f"validation, rung {index + 1}" for index in range(rungs)),
    ]
    columns += ["cost, finetunings", "selection"]
    lines = [
        [
            *(row["start"], given[row["start"]], number(row["knn"]), number(row["logme"])),
            *(number(value) for value in row["validation"]),
            *(f"{row['cost']:.2f}", f"excluded: {row['excluded']}" if row["excluded"] else "kept"),
        ]
        for row in found["starts"]
    ]
    return columns, lines


def sentences(summary: Row) -> list[str]:
    """Return sentences on the selection, its cost, and the rank correlations of the screen."""
    return [selection_text(summary["selection"]), *map(correlation_text, summary["correlation"])]


def selection_text(found: Row) -> str:
    """Return the result of the selection and its cost as a sentence."""
    excluded = [row["start"] for row in found["starts"] if row["excluded"]]
    if found["why"]:
        return f"All starts are compared, without a selection: {found['why']}."
    result = f"excluded {listed(excluded)}" if excluded else "excluded no start"
    where = f"on validation folds with {labels_text([found['labels']])}"
    return (
        f"The selection {where} {result}, at a cost of {found['cost']:.2f} finetunings of at most {found['bound']:g}."
    )


def correlation_text(row: Row) -> str:
    """Return the rank correlations of the screen with one ranking as a sentence."""
    scores = "the mean test scores" if row["of"] == "test" else "the first validation scores of the selection"
    one = row["screen"]
    start = f"Rank correlation of the screen with {scores} with {labels_text([row['labels']])}"
    count = f"{one['n']} start{'' if one['n'] == 1 else 's'}"
    if one["n"] < FEWEST:
        return f"{start}: not computed, too few starts ({count})."
    if one["spearman"] is None:
        return f"{start}: undefined, since all values are equal ({count})."
    alone = ", ".join(f"{name} alone {number(row[key]['spearman'], 2)}" for key, name in MEASURES.items())
    return f"{start}: Spearman {one['spearman']:.2f}, Kendall {one['kendall']:.2f} ({count}; {alone})."


def starts_section(transfer: Transfer, report: Row) -> Section | None:
    """Return the section of the page that ranks the starts."""
    found = report["starts"]
    if not found:
        return None
    note = (
        f"Starts by mean {report['metric']} {BUDGET_PHRASES[found['budget']]}, each compared with the best one at its "
        f"label count, paired by seed; positive is better. The best is chosen on the test split: intervals therefore "
        f"hold simultaneously over all {found['comparisons']} comparisons of the report (Bonferroni), and p values are "
        "adjusted over them (Holm)."
    )
    _, answer = best_starts(transfer, report["verdicts"], found)
    return section("starts", "Which start?", answer, table=as_table(ranking_table(found)), note=note)


def screen_section(transfer: Transfer, report: Row) -> Section | None:
    """Return the section of the page on screen and selection of the starts."""
    found = report["starts"]
    if not found:
        return None
    chosen = found["selection"]
    note = (
        "k-NN: leave-one-out score of a prediction from the 5 nearest labelled rows. LogME: evidence of a linear model "
        f"(You et al. 2021). Both are of frozen features, with {labels_text([chosen['labels']])}, and took "
        f"{number(chosen['screen_seconds'], 2)} seconds. The screen orders the starts and excludes none. Validation: "
        "means over folds of the training rows. A start is excluded if it is not among the two best and worse than the "
        "best with 90 % confidence (one-sided, corrected for all comparisons of the selection)."
    )
    answer = " ".join(sentences(found))
    table = as_table(selection_table(found["given"], chosen))
    return section("screen", "Screen and selection of the starts", answer, table=table, note=note)


def as_table(cells: tuple[list[str], list[list[str]]]) -> Table:
    """Return columns and rows as a table of a section."""
    return dict(zip(("columns", "rows"), cells))
