"""Preference optimization of own and of Hugging Face models, from pairs in files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import FAST
from tests.huggingface.decoder import saved_decoder
from tests.stages.test_completion import COLORS, on, rows

STEPS = ("trainer.min_steps=null", "trainer.precision=null", "trainer.log_every_n_steps=1", "logger=[]")


def made() -> list[dict]:
    """Return questions with the first color as the preferred answer, and another one as the rejected answer."""
    preferred, *others = COLORS
    asked = [row["prompt"] for row in rows()]
    return [{"prompt": one, "chosen": preferred, "rejected": others[number % 3]} for number, one in enumerate(asked)]


def write(path: Path, pairs: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_decoder(tmp_path_factory.mktemp("hub") / "llama")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", made())


def preferring(path: Path, init: object) -> tuple[str, ...]:
    own = ("experiment=preferences", f"data.root={path}", f"init={init}", "data.tokenizer.context=64")
    return (*own, *FAST, *STEPS)


def step_losses(run: Path) -> list[float]:
    logged = pd.read_csv(run / "metrics.csv")
    return logged[logged["name"] == "train/loss_step"]["value"].tolist()


def test_learns_preferences_from_log_2_on(cli, pairs, llama, tmp_path, monkeypatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    words = (*preferring(pairs, f"hf:{llama}"), "data.batch_size=7", "optimizer.lr=0.01", "trainer.max_epochs=4")
    learned = cli("stage=finetune", *words)
    assert learned.status == 0, learned.err
    losses = step_losses(learned.run("finetune"))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert max(losses[-4:]) < 0.5
    metrics = learned.record("finetune")["metrics"]
    assert metrics["train/accuracy"] > 0.9
    assert metrics["train/margin"] == pytest.approx(metrics["train/chosen_reward"] - metrics["train/rejected_reward"])
    assert "[[red<|im_end|>]]" in learned.err
    assert learned.err.count("computed the reference of") == 3
    other = cli("stage=finetune", *words, "objective.beta=0.5", "objective.loss_type=ipo", "trainer.max_epochs=1")
    assert other.status == 0, other.err
    assert step_losses(other.run("finetune"))[0] == pytest.approx(1, abs=1e-5)
    assert "computed the reference of" not in other.err


def test_adapters_on_a_finetuned_chat_model(cli, pairs, llama, tmp_path):
    prompts = write(tmp_path / "prompts.jsonl", rows())
    start = cli("stage=finetune", *on(prompts, llama), *STEPS, "data.template=chatml", "test=false")
    assert start.status == 0, start.err
    adapted = cli("stage=finetune", *preferring(pairs, start.run("finetune")), "strategy=lora", "strategy.dropout=0.5")
    assert adapted.status == 0, adapted.err
    record = adapted.record("finetune")
    assert record["transfer"]["head"] == "loaded"
    assert "dropout is disabled: objective=dpo compares with the initial weights" in adapted.err
    run = max(adapted.runs("finetune"), key=lambda path: path.parent.name == "preferences")
    assert step_losses(run)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert json.loads((run / "model/preprocessor.json").read_text())["template"] == "chatml"
    again = cli("stage=evaluate", f"run={run}")
    assert again.status == 0, again.err
    found, before = again.record("evaluate")["metrics"], json.loads((run / "run.json").read_text())["metrics"]
    for name in ("loss", "margin", "chosen_reward"):
        assert found[f"test/{name}"] == pytest.approx(before[f"test/{name}"], abs=1e-5)
    predicted = cli("stage=predict", f"run={run}", f"input={pairs}")
    assert predicted.status == 0, predicted.err
    first = json.loads(predicted.out.splitlines()[0])
    assert set(first) == {"row", "chosen", "rejected"}
    assert first["chosen"] < 0


def test_equal_pairs_and_packing_are_refused(cli, pairs, llama, tmp_path):
    equal = write(tmp_path / "equal.jsonl", [*made(), *({**row, "rejected": row["chosen"]} for row in made()[:2])])
    refused = cli("stage=finetune", *preferring(equal, f"hf:{llama}"))
    assert refused.status == 2
    assert "chosen and rejected are equal in 2 of 42 rows, the first is row 41: remove these rows" in refused.error
    packed = cli("stage=finetune", *preferring(pairs, f"hf:{llama}"), "data.pack=true")
    assert packed.status == 2
    assert "data.pack=true packs rows whose tokens have labels" in packed.error
    assert not packed.runs("finetune")


def test_a_transfer_compares_with_the_untouched_start(cli, llama, tmp_path):
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in made()]
    own = (
        "stage=transfer",
        "experiment=preferences",
        f"data.root={write(tmp_path / 'pairs.jsonl', swapped)}",
        "data.tokenizer.context=64",
    )
    few = ("transfer.labels=[all]", "transfer.seeds=1", "trainer.max_steps=12", "trainer.val_check_interval=12")
    found = cli(*own, *few, f"transfer.start=hf:{llama}", "optimizer.lr=0.01", "data.batch_size=7", "logger=[]")
    assert found.status == 0, found.err
    runs = found.run("transfer") / "runs"
    records = {path.parent.name.split("-")[0]: json.loads(path.read_text()) for path in runs.glob("*/run.json")}
    tuned, untouched = (records[arm]["metrics"] for arm in ("pretrained", "untouched"))
    assert tuned["test/ranking_accuracy"] > untouched["test/ranking_accuracy"]
    assert untouched["test/margin"] == 0
    assert "test/ranking_accuracy" in found.out
