"""Import and export of transformers models: padding tokens, trained heads, unusual configs, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from scripts.scan_exports import make_model, rows, scan, text_tokenizer
from tests.conftest import FAST
from tests.records import change_run
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from warmstart.run.saved import open_model

SHORT = (*FAST, "trainer.max_steps=1", "trainer.val_check_interval=1", "data.batch_size=4", "test=false")
END = "<|endoftext|>"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def table(tmp_path: Path) -> tuple[str, ...]:
    """Labelled texts, as words of a command line."""
    path = tmp_path / "rows.tsv"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows()))
    words = ("data.text=text", "data.target=label", "data.tokenizer.context=32", "trainer.precision=null")
    return "experiment=text", f"data.root={path}", *words


def classifier(folder: Path, name: str, labels: tuple[str, ...], **settings: object) -> Path:
    """A tiny classifier with random weights, as transformers saves it."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    config = transformers.CONFIG_MAPPING[name](vocab_size=200, **sizes, **named, **settings)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    text_tokenizer("encoder").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("encoder", "bert"),
        ("encoder", "deberta-v2"),
        ("encoder", "roberta"),
        ("decoder", "gpt2"),
        ("decoder", "llama"),
        ("images", "vit"),
        ("images", "resnet"),
        ("speech", "wav2vec2"),
    ],
)
def test_a_tiny_model_of_each_kind_comes_back_equal(kind: str, name: str, tmp_path: Path):
    found = scan(kind, name, tmp_path)
    assert found.result == "equal", found.reason
    assert found.difference <= 1e-4


def test_a_network_that_transformers_classifies_otherwise_is_refused_and_leaves_nothing(tmp_path: Path):
    found = scan("encoder", "funnel", tmp_path)
    assert found.result == "refused"
    assert "no funnel for sequence_classification" in found.reason
    assert not (tmp_path / "back").exists()


@torch.no_grad()
def test_a_text_that_ends_in_the_end_token_keeps_its_answer_and_the_tokenizer_its_tokens(cli, table, tmp_path: Path):
    make_model("decoder", "gpt2", tmp_path / "gpt2")
    settings = json.loads((tmp_path / "gpt2/tokenizer_config.json").read_text())
    template = {"chat_template": "{{ messages }}", "errors": "replace"}
    (tmp_path / "gpt2/tokenizer_config.json").write_text(json.dumps({**settings, **template}))
    (tmp_path / "gpt2/merges.txt").write_text("#version: 0.2\n")
    tuned = cli("stage=finetune", *table, *SHORT, f"init=hf:{tmp_path / 'gpt2'}")
    assert tuned.status == 0, tuned.err
    exported = cli("stage=export", *table[:1], f"folder={tmp_path / 'back'}")
    assert exported.status == 0, exported.err
    record = exported.record("export")["export"]
    assert record["data"] == "text_table"
    assert record["difference"] < 1e-5

    change_run(exported.run("export"), status="interrupted")  # killed once the folder was in place
    (left := tmp_path / ".back.0123abcd.tmp").mkdir()
    assert cli(f"resume={exported.run('export')}").status == 0
    assert exported.record("export")["status"] == "done"
    assert not left.exists()

    texts = [f"happy {END}", "happy", f"so fine {END}{END}"]
    (lines := tmp_path / "lines.txt").write_text("".join(f"{text}\n" for text in texts))
    answers = [json.loads(line) for line in cli("stage=predict", *table[:1], f"input={lines}").out.splitlines()]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "back").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
    number = [model.config.label2id[answer["label"]] for answer in answers]
    batch = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1) for text in texts])
    for found in (batch, alone):
        assert found[range(3), number].tolist() == pytest.approx([a["probability"] for a in answers], abs=1e-5)
    assert tokenizer.eos_token == tokenizer.bos_token == END
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.pad_token_id == model.config.pad_token_id == len(AutoTokenizer.from_pretrained(tmp_path / "gpt2"))
    kept = json.loads((tmp_path / "back/tokenizer_config.json").read_text())
    assert {name: kept[name] for name in template} == template
    assert (tmp_path / "back/merges.txt").read_text() == "#version: 0.2\n"


def test_an_export_that_answers_otherwise_is_refused_with_the_difference(cli, table, tmp_path: Path, monkeypatch):
    folder = classifier(tmp_path / "bert", "bert", ("bad", "good"))
    assert cli("stage=finetune", *table, *SHORT, f"init=hf:{folder}").status == 0
    save = transformers.PreTrainedModel.save_pretrained

    def changed(model: torch.nn.Module, path: Path, **more: object) -> None:
        with torch.no_grad():
            model.classifier.bias += 0.25
        save(model, path, **more)

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", changed)
    outcome = cli("stage=export", *table[:1], f"folder={tmp_path / 'back'}")
    assert outcome.status == 2
    assert len(outcome.error.splitlines()) == 1
    assert "has other predictions in one padded batch (largest difference 0.25" in outcome.error
    assert outcome.record("export")["status"] == "failed"
    assert not (tmp_path / "back").exists()
    assert {path.name for path in outcome.run("export").iterdir()} == {"run.json", "config.yaml", "train.log", "lock"}


def test_data_that_is_gone_is_reported_and_built_in_rows_are_compared(cli, table, tmp_path: Path):
    folder = classifier(tmp_path / "bert", "bert", ("bad", "good"))
    assert cli("stage=finetune", *table, *SHORT, f"init=hf:{folder}").status == 0
    (tmp_path / "rows.tsv").unlink()
    outcome = cli("stage=export", *table[:1], f"folder={tmp_path / 'back'}")
    assert outcome.status == 0, outcome.err
    assert "the run's data cannot be loaded, so only built-in rows are compared" in outcome.err
    assert outcome.record("export")["export"]["data"] == "built-in"


@pytest.mark.parametrize(
    ("labels", "head", "message"),
    [
        (("bad", "good"), "loaded", "loaded the head of"),
        (("good", "bad"), "loaded", "loaded the head of"),
        (("LABEL_0", "LABEL_1"), "random", "is for other labels (LABEL_0, LABEL_1; here bad, good)"),
        (("bad", "good", "odd"), "random", "is for other labels (bad, good, odd; here bad, good)"),
    ],
)
@torch.no_grad()
def test_a_trained_head_is_kept_where_it_has_the_tasks_labels(labels, head, message, cli, table, tmp_path: Path):
    folder = classifier(tmp_path / "bert", "bert", labels)
    outcome = cli("stage=finetune", *table, *SHORT, "optimizer.lr=1e-9", f"init=hf:{folder}")
    assert outcome.status == 0, outcome.err
    assert message in outcome.err.replace("\n", " ")
    assert outcome.record("finetune")["transfer"]["head"] == head
    if head == "random":
        return
    text = rows()[0][0]
    (line := tmp_path / "line.txt").write_text(f"{text}\n")
    answer = json.loads(cli("stage=predict", *table[:1], f"input={line}").out)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits.softmax(-1)[0]
    assert found[model.config.label2id[answer["label"]]].item() == pytest.approx(answer["probability"], abs=1e-4)


def test_a_head_of_another_task_is_new_and_the_message_names_it(cli, table, tmp_path: Path):
    folder = classifier(tmp_path / "bert", "bert", ("bad", "good"))
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    outcome = cli("stage=finetune", *table, *SHORT, f"init=hf:{folder}")
    assert "is for token_classification" in outcome.err.replace("\n", " ")
    assert outcome.record("finetune")["transfer"]["head"] == "random"


def test_a_tied_head_is_not_called_new(cli, table, tmp_path: Path):
    folder = tmp_path / "gpt2"
    make_model("decoder", "gpt2", folder)
    own = (*table, *SHORT[:1], "trainer.max_steps=1", "trainer.val_check_interval=1", "data.batch_size=4")
    outcome = cli("stage=pretrain", *own, "objective=causal", "data.pack=32", f"init=hf:{folder}")
    assert outcome.status == 0, outcome.err
    assert "a new one" not in outcome.err
    assert "the head is tied to the weights of the backbone" in outcome.err
    assert outcome.record("pretrain")["transfer"]["head"] == "tied"


def test_a_regression_is_exported_in_its_units(cli, table, tmp_path: Path):
    folder = classifier(tmp_path / "bert", "bert", ("bad", "good"))
    lines = "".join(f"{text}\t{1000 + 7 * number}\n" for number, (text, _) in enumerate(rows()))
    (tmp_path / "rows.tsv").write_text(f"text\tlabel\n{lines}")
    outcome = cli("stage=finetune", *table, *SHORT, "objective=regression", f"init=hf:{folder}")
    assert outcome.status == 0, outcome.err
    exported = cli("stage=export", *table[:1], f"folder={tmp_path / 'back'}")
    assert exported.status == 0, exported.err
    text = rows()[0][0]
    (line := tmp_path / "line.txt").write_text(f"{text}\n")
    answer = json.loads(cli("stage=predict", *table[:1], f"input={line}").out)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "back").eval()
    found = model(**AutoTokenizer.from_pretrained(tmp_path / "back")(text, return_tensors="pt")).logits.item()
    assert found == pytest.approx(answer["label"], rel=1e-5)
    assert 1000 < found < 1200


def test_numbers_that_json_does_not_know_survive_in_a_run(cli, table, tmp_path: Path):
    folder = tmp_path / "mamba2"
    make_model("decoder", "mamba2", folder)
    assert '"__float__": "Infinity"' in (folder / "config.json").read_text()
    outcome = cli("stage=finetune", *table, *SHORT, f"init=hf:{folder}")
    assert outcome.status == 0, outcome.err
    limits = open_model(outcome.run("finetune") / "model").card["backbone"]["architecture"]["time_step_limit"]
    assert limits == [0.0, float("inf")]
    assert cli("stage=evaluate", *table[:1]).status == 0
