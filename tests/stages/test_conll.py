"""CoNLL column files: what is read, what is refused, and a finetuning that is selected and measured by entities."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tests.conftest import FAST, Outcome

from warmstart.core.errors import UserError
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.sources.text.conll import Conll
from warmstart.data.sources.text.text_table import TextTable
from warmstart.run.scores import read_scores

SENTENCES = (
    "Ada NNP B-PER\nBrook NNP I-PER\ncame VBD O\nfrom IN O\nLeeds NNP B-LOC\n. . O\n",
    "nobody NN O\nsaw VBD O\nOslo NNP B-LOC\n",
    "it PRP O\nwas VBD O\nlate RB O\n",
)
DOCUMENT = "-DOCSTART- -X- O\n\n"
TINY = ("backbone=tiny", "data.tokenizer.vocabulary=120", "data.tokenizer.context=32")
FINETUNE = ("stage=finetune", "init=scratch", "experiment=ner", *TINY)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def documents(count: int) -> str:
    return "".join(DOCUMENT + "\n".join(SENTENCES) + "\n" for _ in range(count))


def split_folder(path: Path, text: str = documents(4)) -> Path:
    path.mkdir()
    for name in ("eng.train", "eng.testa"):
        (path / name).write_text(text)
    with gzip.open(path / "eng.testb.gz", "wt") as file:
        file.write(text.replace("\n", "\r\n").replace(" ", " \t"))
    return path


def load(root: Path, **settings: object):
    return Conll(Preprocessor, str(root), **settings).load("tags")


def test_files_of_a_folder_are_splits_and_documents_are_clusters(tmp_path: Path):
    splits = load(split_folder(tmp_path / "data"))
    assert splits.labels == ("B-LOC", "B-PER", "I-PER", "O")
    for rows, name in ((splits.train, "eng.train"), (splits.validation, "eng.testa"), (splits.test, "eng.testb.gz")):
        assert rows.x.text.tolist()[:2] == [["Ada", "Brook", "came", "from", "Leeds", "."], ["nobody", "saw", "Oslo"]]
        assert rows.y[0] == [1, 2, 3, 3, 0, 3]
        assert rows.cluster.tolist() == [f"{name} {number}" for number in (1, 2, 3, 4) for _ in SENTENCES]
    assert load(tmp_path / "data", column=1).labels == (".", "IN", "NN", "NNP", "PRP", "RB", "VBD")


def test_a_file_is_split_by_document_or_by_sentence(tmp_path: Path):
    (tmp_path / "all.conll").write_text(documents(8))
    splits = load(tmp_path / "all.conll")
    assert splits.keeps_clusters
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 24
    for text in (documents(8).replace(DOCUMENT, ""), DOCUMENT + documents(8).replace(DOCUMENT, "")):
        (tmp_path / "all.conll").write_text(text)
        assert load(tmp_path / "all.conll").train.cluster is None


def test_repaired_tags_have_the_same_entities(tmp_path: Path):
    text = documents(4).replace("B-", "I-")  # as in the files of CoNLL-2003
    splits = load(split_folder(tmp_path / "data", text), repair_tags=True)
    assert [splits.labels[number] for number in splits.train.y[0]] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]


BAD = {
    "invalid": (("nobody NN O", "nobody NN I-PER"), (), ("all.conll, line 10", "I-PER", "BIO", "repair_tags=true")),
    "begins with another type": (("Brook NNP I-PER", "Brook NNP I-LOC"), (), ("all.conll, line 4", "I-LOC")),
    "not ended": (("Brook NNP I-PER", "Brook NNP S-PER"), (), ("all.conll, line 4", "S-PER", "BIOES")),
    "uneven": (("saw VBD O", "saw O"), (), ("all.conll, line 11", "2 columns", "line 3 has 3")),
    "no such column": ((), ("data.column=3",), ("all.conll has 3 columns", "data.column=3")),
    "same column": ((), ("data.words=2",), ("data.words=2", "the same")),
    "one column": ((" ", "_"), (), ("all.conll has one column",)),
    "no clusters": ((DOCUMENT, ""), ("data.split=cluster",), ("data.split=cluster",)),
    "no words": ((documents(5), DOCUMENT), (), ("all.conll has no words",)),
}


@pytest.mark.parametrize(("change", "words", "parts"), BAD.values(), ids=BAD)
def test_bad_files_are_refused(change: tuple[str, ...], words: tuple[str, ...], parts: tuple[str, ...], cli, tmp_path):
    text = documents(5)
    (tmp_path / "all.conll").write_text(text.replace(*change) if change else text)
    refused(cli(*FINETUNE, *FAST, f"data.root={tmp_path / 'all.conll'}", *words), *parts)


def test_splits_need_names(tmp_path: Path):
    folder = split_folder(tmp_path / "data")
    (folder / "more.txt").write_text(documents(2))
    with pytest.raises(UserError, match=r"train, validation are splits|more\.txt has no split"):
        load(folder)


def test_invalid_tags_of_a_table_are_refused_or_repaired(cli, tmp_path: Path):
    rows = [{"words": ["it", "was", "Ada"], "tags": ["O", "O", "I-PER" if n == 6 else "B-PER"]} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    columns = ("data.text=words", "data.target=tags", "objective=token_classification", *TINY, *FAST)
    words = ("stage=finetune", "init=scratch", "experiment=text", f"data.root={tmp_path / 'a.jsonl'}", *columns)
    refused(cli(*words), "row 7, word 3: the tag I-PER", "repair_tags=true")
    source = TextTable(Preprocessor, str(tmp_path / "a.jsonl"), "words", "tags", repair_tags=True)
    assert source.load("tags").labels == ("B-PER", "O")


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.status == 2, outcome.err
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in outcome.error, outcome.error


def test_entities_select_and_measure_a_finetuning_and_are_predicted(cli, tmp_path: Path):
    root = split_folder(tmp_path / "data")
    with gzip.open(root / "eng.testb.gz", "wt") as file:
        file.write(documents(4).replace("Oslo NNP B-LOC", "Oslo NNP B-PER", 1))
    words = ("trainer.max_epochs=-1", "trainer.max_steps=60", "trainer.val_check_interval=30", "optimizer.lr=0.01")
    outcome = cli(*FINETUNE, f"data.root={root}", *words, "trainer.check_val_every_n_epoch=null")
    assert outcome.status == 0, outcome.err
    folder, metrics = outcome.run("finetune"), outcome.record("finetune")["metrics"]
    assert metrics["val/f1"] == metrics["test/recall_LOC"] == 1
    assert metrics["test/f1"] == pytest.approx(11 / 12)
    assert metrics["test/f1_PER"] == pytest.approx(8 / 9)
    assert read_scores(folder).mean() == pytest.approx(11 / 12)
    assert b"worst tagged sentences" in next(folder.glob("events*")).read_bytes()
    (tmp_path / "new.txt").write_text("nobody saw  Ada Brook\n")
    outcome = cli("stage=predict", f"run={folder}", f"input={tmp_path / 'new.txt'}")
    line = json.loads((outcome.run("predict") / "predictions.jsonl").read_text())
    assert line["labels"] == ["O", "O", "B-PER", "I-PER"]
    assert line["entities"] == [{"text": "Ada Brook", "type": "PER", "start": 12, "end": 21}]


def test_the_verdict_of_a_transfer_is_about_the_f1_of_entities_in_other_documents(cli, tmp_path: Path):
    root = split_folder(tmp_path / "data", documents(6))
    short = ("trainer.max_steps=4", "trainer.val_check_interval=4", "pretrain.trainer.max_epochs=1")
    rules = ("arms=[pretrained,scratch]", "labels=[all]", "seeds=2", "budgets.converged=[]", "tune=0")
    words = (*short, *(f"transfer.{rule}" for rule in rules), "visualization@pretrain.visualization=[]")
    words = (*words, "pretrain.data.pack=16", "pretrain.feature_rows=0", "hydra.launcher.workers=0")
    outcome = cli("stage=transfer", "experiment=ner", f"data.root={root}", *TINY, *words)
    assert outcome.status == 0, outcome.err
    folder = next((outcome.folder / "transfer").glob("*/*/report.json")).parent
    report = json.loads((folder / "report.json").read_text())
    assert report["metric"] == "test/f1"
    assert report["clusters"]["count"] == 6
    assert report["clusters"]["noun"] == "documents"
    assert report["clusters"]["scope"] == "population"
    for run in folder.glob("runs/*-seed*"):
        record = json.loads((run / "run.json").read_text())
        assert read_scores(run).mean() == pytest.approx(record["metrics"]["test/f1"], abs=1e-6)
    assert not [warning for warning in report["warnings"] if "not a mean" in warning]
