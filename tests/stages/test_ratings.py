"""Kahneman-Tversky optimization of Hugging Face models, from rated completions and from pairs in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.stages.test_preferences import llama, made, pairs, preferring, step_losses, write  # noqa: F401  fixtures

LEARNS = ("data.batch_size=7", "optimizer.lr=0.01", "trainer.max_epochs=4")


def rated(path: Path, init: object) -> tuple[str, ...]:
    return (*preferring(path, init), "objective=kto")


def ratings() -> list[dict]:
    """Return a rated completion per question: the first color is desirable, others are not."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if number % 2 else "rejected"], "label": bool(number % 2)}
        for number, row in enumerate(made())
    ]


def test_learns_ratings_from_one_half_on(cli, llama, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    words = rated(write(tmp_path / "rated.jsonl", ratings()), f"hf:{llama}")
    learned = cli("stage=finetune", *words, *LEARNS)
    assert learned.status == 0, learned.err
    run = learned.run("finetune")
    losses = step_losses(run)
    assert losses[0] == pytest.approx(0.5, abs=1e-6)
    assert max(losses[-3:]) < 0.45
    metrics = learned.record("finetune")["metrics"]
    assert metrics["test/margin"] > 0.5
    assert metrics["test/margin"] == pytest.approx(
        metrics["test/desirable_reward"] - metrics["test/undesirable_reward"]
    )
    assert metrics["train/reference_point"] >= 0
    assert "[[red<|im_end|>]]" in learned.err
    assert learned.err.count("computed the reference of") == 3
    again = cli("stage=evaluate", f"run={run}", "experiment=preferences")
    assert again.status == 0, again.err
    for name in ("loss", "margin", "reference_point"):
        assert again.record("evaluate")["metrics"][f"test/{name}"] == pytest.approx(metrics[f"test/{name}"], abs=1e-5)
    predicted = cli("stage=predict", f"run={run}", f"input={write(tmp_path / 'one.jsonl', ratings()[:1])}")
    assert predicted.status == 0, predicted.err
    (first,) = map(json.loads, predicted.out.splitlines())
    assert set(first) == {"row", "log_probability"}
    assert first["log_probability"] < 0


def test_adapters_learn_from_pairs_as_two_rated_rows_in_one_split(cli, pairs, llama, tmp_path):  # noqa: F811
    words = (*rated(pairs, f"hf:{llama}"), *LEARNS[:2], "strategy=lora", "strategy.dropout=0.5", "trainer.max_epochs=1")
    adapted = cli("stage=finetune", *words)
    assert adapted.status == 0, adapted.err
    run = adapted.run("finetune")
    assert step_losses(run)[0] == pytest.approx(0.5, abs=1e-6)
    record = adapted.record("finetune")
    assert sum(record["data"]["rows"].values()) == 2 * len(made())
    assert all(count % 2 == 0 for count in record["data"]["rows"].values())
    refused = cli("stage=predict", f"run={run}", f"input={pairs}")
    assert refused.status == 2
    assert "give completion instead of chosen and rejected" in refused.error


def test_a_transfer_compares_with_the_untouched_start(cli, llama, tmp_path):  # noqa: F811
    words = rated(write(tmp_path / "rated.jsonl", ratings()), f"hf:{llama}")
    kept = [word for word in words if not word.startswith(("init=", "trainer.", "logger"))]
    few = ("transfer.labels=[all]", "transfer.seeds=1", "trainer.max_steps=12", "trainer.val_check_interval=12")
    own = (f"transfer.start=hf:{llama}", "optimizer.lr=0.01", "data.batch_size=7", "logger=[]", "objective.metric=loss")
    found = cli("stage=transfer", *kept, *few, *own)
    assert found.status == 0, found.err
    runs = found.run("transfer") / "runs"
    records = {path.parent.name.split("-")[0]: json.loads(path.read_text()) for path in runs.glob("*/run.json")}
    assert records["untouched"]["metrics"]["test/loss"] == pytest.approx(0.5)
    assert records["pretrained"]["metrics"]["test/loss"] < 0.5


REFUSED = {
    "one rating": (lambda: [{**row, "label": True} for row in ratings()], "rated completions of a split are desirable"),
    "no rating": (lambda: [{"prompt": "a", "completion": "b"}] * 9, "has no ratings: it needs columns prompt"),
    "a score": (lambda: [*ratings(), {**ratings()[0], "label": 3}], "row 41, column label: '3' is neither true"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ratings_that_teach_nothing_are_refused(cli, llama, tmp_path, name):  # noqa: F811
    rows, message = REFUSED[name]
    refused = cli("stage=finetune", *rated(write(tmp_path / "rated.jsonl", rows()), f"hf:{llama}"))
    assert refused.status == 2
    assert message in refused.error
    assert not refused.runs("finetune")


def test_ratings_for_dpo_name_the_objective(cli, llama, tmp_path):  # noqa: F811
    path = write(tmp_path / "rated.jsonl", ratings())
    refused = cli("stage=finetune", *preferring(path, f"hf:{llama}"))
    assert refused.status == 2
    assert "set objective=kto" in refused.error
