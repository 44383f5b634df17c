"""The headline of a transfer's report: its verdict, and the sentences that state it."""

from __future__ import annotations

from typing import Any

from warmstart.report import controls, paired
from warmstart.report.controls import STRONGEST, UNTOUCHED
from warmstart.report.runs import Labels, Transfer
from warmstart.report.verdicts import labels_text, tick, unit_noun

Row = dict[str, Any]
PREDICATES = {
    "helps": "helps with {}",
    "hurts": "hurts with {}",
    "equivalent": "is equivalent within the margin with {}",
    "cannot tell": "has no detectable effect with {}",
}
CONTROL_PREDICATES = {
    "hurts": "is worse with {}",
    "helps": "is better with {}",
    "equivalent": "is equivalent within the margin with {}",
    "cannot tell": "has no detectable difference with {}",
}


def headline(transfer: Transfer, rows: list[Row]) -> dict[str, Any]:
    """Return the verdict of the report: the first comparison at its first budget, over all label counts.

    helps: at one label count or more, and hurts at none; hurts: vice versa; equivalent: at all label counts; cannot
    tell: all other cases; None: too few seeds. The sentences on controls do not change the verdict; that on the
    strongest control comes first if the arm is worse.
    """
    if not rows:
        return {"verdict": None, **as_sentences(["No verdict: no arm was compared with another."]), "arm": None}
    first = rows[0]
    same = [row for row in rows if all(row[key] == first[key] for key in ("arm", "against", "role", "budget"))]
    verdicts = [row["verdict"] for row in same]
    if None in verdicts:
        verdict = None
        judged = [row for row in same if row["verdict"] is not None]
        texts = [too_few(transfer, [row for row in same if row["verdict"] is None], bool(judged))]
        texts += sentences(transfer, judged, rows) if judged else []
    else:
        if "helps" in verdicts and "hurts" not in verdicts:
            verdict = "helps"
        elif "hurts" in verdicts and "helps" not in verdicts:
            verdict = "hurts"
        else:
            verdict = "equivalent" if set(verdicts) == {"equivalent"} else "cannot tell"
        texts = sentences(transfer, same, rows)
    return {"verdict": verdict, **as_sentences(texts), **{key: first[key] for key in ("arm", "against", "budget")}}


def as_sentences(texts: list[str]) -> dict[str, Any]:
    """Return the sentences of a headline, also as one text."""
    return {"sentence": " ".join(texts), "sentences": texts}


def too_few(transfer: Transfer, rows: list[Row], are_others: bool) -> str:
    """Return the sentence on rows with too few units; it names their label counts if there are others."""
    n = min(row["n"] for row in rows)
    where = f" with {labels_text([row['labels'] for row in rows])}" if are_others else ""
    failed = flags(rows)
    return (
        f"No verdict{where}: {n} paired {unit_noun(transfer.rules, n)} {'is' if n == 1 else 'are'} too few"
        f"{f' ({failed})' if failed else ''}; at least {paired.MIN_UNITS} are needed."
    )


def flags(rows: list[Row]) -> str:
    """Return the failed runs of rows as text."""
    return "; ".join(dict.fromkeys(row["flag"] for row in rows if row["flag"]))


def sentences(transfer: Transfer, same: list[Row], rows: list[Row]) -> list[str]:
    """Return the sentences of the headline: on the first comparison, the strongest control, the lack of finetuning."""
    first = same[0]
    best = controls.selected(transfer, first["arm"], first["budget"])
    against = {role: rows_against(first, rows, best[role]) for role in (STRONGEST, UNTOUCHED)}
    strongest, untouched = (with_control(transfer, first, against[role], role, best[role]) for role in against)
    others = [row for row in against[STRONGEST] if row["against"] != first["against"]]
    is_worse = strongest is not None and any(row["verdict"] == "hurts" for row in others)
    main = sentence_of(transfer, same, names_control=is_worse)
    found = [strongest, main, untouched] if is_worse else [main, strongest, untouched]
    return [sentence for sentence in found if sentence]


def sentence_of(transfer: Transfer, rows: list[Row], names_control: bool = False) -> str:
    """Return the sentence on the rows of one comparison; `scratch` is named as the control only if asked."""
    first = rows[0]
    against = f" against {first['against']}" if names_control or first["against"] != "scratch" else ""
    found = "; ".join(clauses(transfer, rows, PREDICATES))
    where = f"{first['budget_text']}{test_set(transfer)}"
    return f"{subject(first)}{against}, {where}: {found}{limit(transfer)}."


def limit(transfer: Transfer) -> str:
    """Return the restriction of a result to the test clusters as a clause, if they are few, else an empty text."""
    clusters = transfer.test_clusters
    return "" if clusters is None or clusters.is_sample else "; the result does not extend to others"


def rows_against(first: Row, rows: list[Row], best: dict[Labels, str]) -> list[Row]:
    """Return the rows of the headline's arm and budget against the best arm of each label count."""
    wanted = {(first["arm"], arm, first["budget"], labels): labels for labels, arm in best.items()}
    found = {tuple(row[key] for key in ("arm", "against", "budget", "labels")): row for row in rows}
    return [found[key] for key in wanted if key in found]


def with_control(transfer: Transfer, first: Row, rows: list[Row], role: str, best: dict[Labels, str]) -> str | None:
    """Return the sentence on the best arm of a role; None without one, or without a verdict.

    Args:
        first: row of the headline's comparison.
        rows: of the comparisons with the best arm.
        best: the best arm by label count.
    """
    if not rows or any(row["verdict"] is None for row in rows):
        return None
    if {row["against"] for row in rows} == {first["against"]}:
        several = len(controls.candidates(transfer, first["budget"], role)) > 1
        return f"{first['against']} is the strongest control." if several and role == STRONGEST else None
    names = {}
    for labels, arm in best.items():
        names.setdefault(arm, []).append(labels)
    named = ", ".join(f"{arm} with {labels_text(labels)}" for arm, labels in names.items())
    clusters = transfer.test_clusters
    scope = "" if clusters is None or clusters.is_sample else f", on {clusters.these} only"
    what = "finetuning" if role == UNTOUCHED and first["arm"] == "pretrained" else subject(first)
    what = what[0].lower() + what[1:]
    named = named if len(names) > 1 else next(iter(names))
    text = "; ".join(clauses(transfer, rows, CONTROL_PREDICATES))
    return f"Against the {controls.NAMES[role]} ({named}){scope}, {what} {text}."


def subject(row: Row) -> str:
    """Return the subject of the sentence on a comparison."""
    return "Pretraining" if row["arm"] == "pretrained" else f"The arm {row['arm']}"


def test_set(transfer: Transfer) -> str:
    """Return the size of the test set as text, with its clusters."""
    clusters = transfer.test_clusters
    count = transfer.test_rows
    rows = f"{count:,} test row{'s' if count != 1 else ''}" if count else ""
    if clusters is None:
        return f", on {rows}" if rows else ""
    named = f"{clusters.count:,} {clusters.noun}" if clusters.is_sample else f"{clusters.these} only"
    return f", on {rows} of {named}" if rows else f", on {named}"


def clauses(transfer: Transfer, rows: list[Row], predicates: dict[str, str]) -> list[str]:
    """Return a clause per verdict of the rows, each with the largest difference; rows with failed runs are separate."""
    found = []
    for verdict, text in predicates.items():
        chosen = [row for row in rows if row["verdict"] == verdict and not row["flag"]]
        if chosen:
            found.append(text.format(labels_text([row["labels"] for row in chosen])) + f" ({change(transfer, chosen)})")
    failed = [row for row in rows if row["flag"]]
    if failed:
        found.append(f"is not judged with {labels_text([row['labels'] for row in failed])} ({flags(failed)})")
    return found


def change(transfer: Transfer, rows: list[Row]) -> str:
    """Return the largest difference among rows with its interval, as text."""
    row = max(rows, key=lambda row: abs(row["difference"]))
    low, high = row["interval"]
    count = f" at {tick(row['labels'])}" if len(rows) > 1 else ""
    better = "" if transfer.sign == 1 else ", where positive is better"
    name = transfer.metric.removeprefix("test/")
    adjusted = ", not significant after Holm's correction" if row["verdict"] == "cannot tell" and low * high > 0 else ""
    return f"{row['difference']:+.3g} {name}{count}, 95 % interval {low:+.3g} to {high:+.3g}{better}{adjusted}"
