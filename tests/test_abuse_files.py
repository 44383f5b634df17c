"""A subset of scripts/abuse_files.py: unusual files are read correctly or refused with a short message."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from scripts.abuse_cases.case import Case
from scripts.abuse_cases.doors import Bench
from scripts.abuse_files import KINDS, all_cases

CASES = all_cases()
EVERY = 28  # of the cases that load data; of complete commands, EVERY_RUN
EVERY_RUN = 45
LOADED = [case for case in CASES if case.door == "load" and "2,000" not in case.name]
CHOSEN = LOADED[::EVERY] + [case for case in CASES if case.door == "run"][1::EVERY_RUN]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One place for all cases, so that a clean twin or a model is made once."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("abuse")
        patched.setenv("WARMSTART_CACHE", str(folder))
        yield Bench(folder)


@pytest.mark.parametrize(
    "case", CHOSEN, ids=lambda case: f"{case.family}: {case.name}"[:60].encode("unicode_escape").decode()
)
def test_no_defect(case: Case, bench: Bench):
    kind, problem = bench.judge(case)
    assert kind in ("right", "refused"), f"{case.family}: {case.name}: right is {case.expected()}; seen: {problem}"


def test_the_campaign_is_large_and_knows_each_outcome():
    sizes = Counter(case.family for case in CASES)
    assert len(CASES) >= 300
    assert sizes.keys() == {"tables", "texts", "images", "sounds", "manifests", "folders", "predictions"}
    assert min(sizes.values()) >= 30
    for case in CASES:
        assert case.right is not None or case.refused is not None, case.name
        assert case.right is None or case.right.words, case.name


def test_a_defect_is_seen(tmp_path: Path):
    """The campaign itself can fail: a wrong class, a refusal without its place, and a file that is accepted."""
    from scripts.abuse_cases import tables

    bench = Bench(tmp_path)
    wrong = [
        tables.table("other classes", tables.GOOD, right=tables.labels("no", "perhaps")),
        tables.table("no place", "a,c,y\n" + "1,x\n" * 20, refused=("row 99",)),
        tables.table("accepted", tables.GOOD, refused=("anything",)),
        tables.table("refused", "", right=tables.SAME),
    ]
    assert [bench.judge(case)[0] for case in wrong] == ["defect"] * 4
    assert KINDS[-1] == "defect"
