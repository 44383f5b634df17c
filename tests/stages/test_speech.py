"""Recordings in all stages: pretrain, finetune on classes and transcripts, evaluate, predict, transfer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from tests.conftest import FAST

from warmstart.data.sources.audio.spoken_digits import read_packaged

TINY = ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "backbone.stem.channels=4")
FEW = ("data.test_clusters=[george,jackson,lucas,nicolas]",)  # 300 recordings by two speakers train


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path_factory.getbasetemp() / "frames"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's recordings, a folder for each of two digits."""
    table = read_packaged()
    for row in table[table.text.isin(["one", "six"]) & (table.recording < 4)].itertuples():
        path = tmp_path / "mine" / row.text / f"{row.speaker}{row.recording}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, row.audio, row.rate)
    return tmp_path / "mine"


@pytest.mark.parametrize("objective", ["masked_frames", "quantized"])
def test_pretraining_then_words_then_predictions(cli, folder: Path, objective: str):
    pretrained = cli("stage=pretrain", "experiment=speech", f"objective={objective}", *FAST, *TINY, *FEW)
    assert pretrained.status == 0, pretrained.err
    finetuned = cli("stage=finetune", "experiment=speech", *FAST, *TINY, *FEW)
    assert finetuned.status == 0, finetuned.err
    assert finetuned.record("finetune")["transfer"]["fraction"] == 1
    predicted = cli("stage=predict", f"input={folder / 'one'}")
    assert predicted.status == 0, predicted.err
    assert len(predicted.out.splitlines()) == 24
    assert json.loads(predicted.out.splitlines()[0])["file"] == str(folder / "one" / "george0.wav")


def test_texts_are_learned_written_and_shown(cli, folder: Path):
    words = ("stage=finetune", "experiment=speech", "objective=ctc", "init=scratch", "data.connect=[2,3]", *FEW)
    search = ("objective.beam=3", "objective.ngram=3")
    outcome = cli(*words, *search, *TINY, "trainer.max_epochs=1", "optimizer.lr=0.005")
    assert outcome.status == 0, outcome.err
    metrics = outcome.record("finetune")["metrics"]
    assert metrics["test/wer"] == pytest.approx(
        sum(metrics[f"test/{kind}"] for kind in ("substitutions", "deletions", "insertions"))
    )
    evaluated = cli("stage=evaluate")
    assert evaluated.status == 0, evaluated.err
    assert evaluated.record("evaluate")["metrics"]["test/wer"] == pytest.approx(metrics["test/wer"])
    predicted = cli("stage=predict", f"input={folder / 'one' / 'theo0.wav'}")
    assert predicted.status == 0, predicted.err
    assert set(json.loads(predicted.out)) >= {"text", "confidence", "words"}

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(outcome.run("finetune")), size_guidance={"audio": 0})
    events.Reload()
    kinds = [tag.split("/")[0] for tag in events.Tags()["audio"]]
    assert kinds == ["recordings"] * 4 + ["worst transcripts"] * 4
    assert "words over spectrograms" in events.Tags()["images"]


def test_a_users_folder_and_manifest(cli, folder: Path):
    own = ("init=scratch", "data.frames.rate=8000", *FAST, *TINY, "data.batch_size=8")
    outcome = cli("stage=finetune", "experiment=speech", "data=audio_folder", f"data.root={folder}", *own)
    assert outcome.status == 0, outcome.err
    rows = [
        {"audio": str(path.relative_to(folder)), "text": path.parent.name} for path in sorted(folder.rglob("*.wav"))
    ]
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = ("data=audio_table", f"data.root={folder / 'manifest.jsonl'}", "objective=ctc")
    outcome = cli("stage=finetune", "experiment=speech", *manifest, *own)
    assert outcome.status == 0, outcome.err


def test_norms_and_frames_are_adapted_to_each_speaker_of_a_manifest(cli, folder: Path):
    rows = ["audio,label,who,row"]
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        rows.append(f"{path.relative_to(folder)},{path.parent.name},{path.stem[:-1]},{number}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows))
    own = ("experiment=recordings", "init=scratch", f"data.root={manifest}", "data.frames.rate=8000", *FAST)
    network = ("backbone=resnet", "backbone.widths=[4,8]", "backbone.blocks=[1,1]", "data.frames.normalize=speaker")
    refused = cli("stage=finetune", *own, *network)
    assert refused.status == 2
    assert "data.frames.normalize=speaker needs the speaker of each recording: set data.cluster" in refused.error
    trained = cli("stage=finetune", *own, *network, "data.cluster=who")
    assert trained.status == 0, trained.err
    plain = cli("stage=evaluate").record("evaluate")
    adapted = cli("stage=evaluate", "adapt=norms")
    assert adapted.status == 0, adapted.err
    record = adapted.record("evaluate")
    assert record["metrics"]["test/loss"] != plain["metrics"]["test/loss"]
    assert sum(record["adapt"]["rows"]["test"].values()) == record["data"]["rows"]["test"]
    assert "without targets" in adapted.err
    first = cli("stage=predict", f"input={manifest}", "adapt=norms")
    assert first.status == 0, first.err
    assert [json.loads(line)["row"] for line in first.out.splitlines()] == list(range(1, 49))
    assert len(json.loads(first.run("predict").joinpath("run.json").read_text())["adapt"]["rows"]["input"]) == 6
    files = cli("stage=predict", f"input={folder / 'one'}")
    assert files.status == 2
    assert "has no column who, but this model normalizes recordings per speaker" in files.error


def test_adaptation_needs_batch_norms_and_a_stage_that_evaluates(cli, folder: Path):
    own = ("experiment=recordings", "data=audio_folder", f"data.root={folder}", "data.frames.rate=8000", *FAST, *TINY)
    assert cli("stage=finetune", "init=scratch", *own).status == 0
    for words, message in (
        (("stage=evaluate",), "needs batch norms, whose statistics it estimates, but backbone=transformer has none"),
        (("stage=predict", f"input={folder}"), "needs batch norms"),
        (("stage=finetune", *own), "adapt: this stage has no such setting: it is for stage=evaluate and stage=predict"),
    ):
        outcome = cli(*words, "adapt=norms")
        assert outcome.status == 2
        assert message in outcome.error
    assert "adapt=nothing: must be" in cli("stage=evaluate", "adapt=nothing").error


def test_a_transfer_on_recordings_has_a_verdict_or_says_why_not(cli):
    words = ("transfer.seeds=1", "transfer.labels=[2]", "transfer.arms=[pretrained,scratch,linear]", *TINY, *FEW)
    short = ("trainer.max_steps=2", "trainer.val_check_interval=2", "pretrain.trainer.max_epochs=1")
    outcome = cli(
        "stage=transfer", "experiment=speech", *words, *short, "transfer.budgets={steps:[pretrained,scratch,linear]}"
    )
    assert outcome.status == 0, outcome.err
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    assert report


def test_a_manifest_is_not_taken_for_the_spoken_digits(cli, tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("audio,text,speaker\nfirst.wav,good morning,anna\n")
    outcome = cli("stage=finetune", "experiment=speech", "init=scratch", f"data.root={tmp_path / 'manifest.csv'}")
    assert outcome.status == 2
    assert "use data=audio_table" in outcome.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.connect=[2,5]",), "have no class: use objective=ctc"),
        (("data.connect=[5,2]",), "data.connect=[5, 2]"),
        (("data.split=random",), "data.split=random"),
        (("data.classes=speaker",), "set data.split=official"),
        (("data.classes=digit",), "data.classes=digit"),
        (("data.test_clusters=[alice]",), "there is no cluster alice; there are: george"),
        (("data.test_clusters=7/6",), "such as 1/3"),
        (("data.test_clusters=1/7",), "there are only 6 clusters"),
        (("data.cluster=word",), "data.cluster=word: must be speaker"),
        (("data.frames.normalize=no",), "normalize=no"),
        (("data.connect=3", "objective=ctc"), "data.connect=3"),
        (("data.connect=[a,b]", "objective=ctc"), "data.connect=['a', 'b']"),
        (("data.test_clusters=theo",), "data.test_clusters=theo: give names in brackets"),
        (("data.pieces=many", "objective=ctc"), "data.pieces=many"),
        (("data.pieces=3", "objective=ctc"), "data.pieces=3"),
        (("objective=ctc", "objective.ngram=3"), "set objective.beam too"),
        (("objective=ctc", "objective.beam=2", "objective.ngram=30"), "the longest training text has 6 labels"),
        (("backbone=vit",), "is speech"),
        (("backbone.stem.kernel_size=4",), "kernel_size=4"),
        (
            ("data/augment=crop",),
            "is for image, but data=spoken_digits is speech: choose data/augment=frame",
        ),
    ],
)
def test_what_cannot_be_is_refused(cli, words: tuple[str, ...], message: str):
    outcome = cli("stage=finetune", "experiment=speech", "init=scratch", *words)
    assert outcome.status == 2
    assert message in outcome.error
