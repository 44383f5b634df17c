"""Classification by a causal language model that is not trained: the words of the classes after a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from tests.huggingface.decoder import saved_decoder
from transformers import AutoTokenizer, LlamaForCausalLM

from warmstart.data.preprocess import rebuild
from warmstart.huggingface.load import open_hub
from warmstart.objective.scores import CalibrationError

WORDS = "data.label_words={yes: big, no: small}"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_decoder(tmp_path_factory.mktemp("hub") / "decoder")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.csv and test.csv."""
    folder = tmp_path_factory.mktemp("data")
    for part, count in (("train", 10), ("test", 3)):
        texts = [f"{size} {thing} {part} {row}" for row in range(count) for size in ("large", "tiny") for thing in "ab"]
        answers = ["yes" if text.startswith("large") else "no" for text in texts]
        pd.DataFrame({"review": texts, "answer": answers}).to_csv(folder / f"{part}.csv", index=False)
    return folder


def on(table: Path, decoder: Path, *arms: str) -> tuple[str, ...]:
    data = ("experiment=text", f"data.root={table}", "data.text=review", "data.target=answer")
    start = (f"transfer.start=hf:{decoder}", "data.tokenizer.context=64", "transfer.labels=[5]", "transfer.seeds=1")
    return (*data, *start, f"transfer.arms=[{','.join(arms)}]", "transfer.budgets.converged=[]")


@torch.no_grad()
def test_the_class_is_that_of_the_likeliest_word(cli, table: Path, decoder: Path):
    found = cli(*on(table, decoder, "zero_shot", "prompt"), WORDS)
    assert found.status == 0, found.err
    runs = {path.name.split("-")[0]: path for path in (found.run("transfer") / "runs").iterdir() if path.is_dir()}
    metrics = {arm: json.loads((path / "run.json").read_text())["metrics"] for arm, path in runs.items()}
    assert metrics["prompt"]["test/calibration_error"] != metrics["zero_shot"]["test/calibration_error"]
    tokenizer, model = AutoTokenizer.from_pretrained(decoder), LlamaForCausalLM.from_pretrained(decoder).eval()
    numbers = [tokenizer.encode(f"\nLabel: {word}")[-1] for word in ("small", "big")]
    rows, logits = pd.read_csv(table / "test.csv"), []
    for text in rows.review:
        ids = torch.tensor([tokenizer.encode(f"Text: {text}\nLabel:")])
        logits.append(model(ids).logits[0, -1, numbers])
    expected = float(CalibrationError(2)(torch.stack(logits), torch.tensor(rows.answer == "yes").long()))
    assert metrics["zero_shot"]["test/calibration_error"] == pytest.approx(expected, abs=1e-5)
    assert "zero_shot" in (found.run("transfer") / "report.md").read_text()


def test_a_prompt_has_the_examples_that_fit_and_the_end_of_a_long_text_is_cut(decoder: Path):
    preprocessor = rebuild(open_hub(f"hf:{decoder}").preprocessor)
    x = pd.DataFrame({"text": ["a big cat", "color of the " * 50]})
    examples = pd.DataFrame({"text": ["small things", "xyzw" * 10]})
    found = preprocessor.label_prompts(x, examples, ["big", "small"])
    fitting, long = (preprocessor.decode(found.padded([row])[0][0].tolist()) for row in range(2))
    assert fitting == "Text: small things\nLabel: big\n\nText: a big cat\nLabel:"
    assert long.startswith("Text: color of the color of")
    assert long.endswith("\nLabel:")
    assert len(found.padded([1])[0][0]) == preprocessor.context


def test_a_finetuning_refuses_words(command, table: Path):
    own = ("experiment=text", f"data.root={table}", "data.text=review", "data.target=answer", WORDS)
    refused = command("stage=finetune", *own)
    assert refused.status == 2
    assert "data.label_words: a finetuning trains a head for the classes" in refused.error
    assert "zero_shot and prompt of stage=transfer: remove it" in " ".join(refused.error.split())


REFUSED = {
    "no arm": ("transfer.arms=[trivial]", "data.label_words: no arm of this transfer uses words"),
    "several tokens": ("data.label_words={yes: enormous, no: big}", "the label word 'enormous' is no single token"),
    "names": ("seed=0", "transfer.arms: zero_shot the label word 'no' is no single token"),
    "unknown class": ("data.label_words={maybe: big}", "there is no class maybe; there are: no, yes"),
    "same word": ("data.label_words={yes: big, no: big}", "the label words 'big' and 'big' are the same token"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_words_that_are_not_one_token_each_are_refused(command, table: Path, decoder: Path, name: str):
    word, message = REFUSED[name]
    words = (WORDS, word) if name == "no arm" else (word,)
    refused = command("stage=transfer", *on(table, decoder, "zero_shot"), *words)
    assert refused.status == 2
    assert message in " ".join(refused.error.split())
