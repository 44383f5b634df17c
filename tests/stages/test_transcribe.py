"""Speech to text with a tiny Whisper: training, evaluation, predictions and export, and settings that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import transformers
from tests.conftest import FAST
from tests.huggingface.decoder import saved_decoder
from tests.huggingface.test_speech import saved_folder
from tests.huggingface.tiny_whisper import RATE, SECONDS, made_recordings, saved_whisper

from warmstart.run.saved import open_model

SMALL = ("trainer.min_steps=null", "trainer.precision=null", "data.batch_size=8", "objective.length=6")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path_factory.getbasetemp() / "frames"))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_whisper(tmp_path_factory.mktemp("models") / "whisper")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_recordings(tmp_path_factory.mktemp("recordings"), 20)


def on(manifest: Path, start: Path, *words: str) -> tuple[str, ...]:
    given = ("stage=finetune", "experiment=transcribe", f"data.root={manifest}", f"init=hf:{start}")
    return (*given, *FAST, *SMALL, *words)


def test_a_model_is_trained_evaluated_asked_and_its_export_generates_the_same(cli, whisper, manifest, tmp_path):
    words = ("data.frames.language=german", "optimizer.lr=0.003", "trainer.max_epochs=2")
    learned = cli(*on(manifest, whisper, *words, "objective.normalizer=english"))
    assert learned.status == 0, learned.err
    record = learned.record("finetune")
    assert record["transfer"]["fraction"] == 1
    assert record["scoring"] == {"normalizer": "english"}
    assert {"val/wer", "test/wer", "test/cer"} <= set(record["metrics"])
    positions = open_model(learned.run("finetune") / "model").weights["model.model.encoder.embed_positions.weight"]
    start = transformers.WhisperForConditionalGeneration.from_pretrained(whisper)
    assert positions.equal(start.model.encoder.embed_positions.weight)  # constant, as in transformers
    again = cli("stage=evaluate", "experiment=transcribe").record("evaluate")
    assert again["metrics"]["test/wer"] == pytest.approx(record["metrics"]["test/wer"])
    assert again["scoring"] == {"normalizer": "english"}

    predicted = cli("stage=predict", "run=latest", f"input={manifest}")
    assert predicted.status == 0, predicted.err
    found = {Path(line["file"]): line["text"] for line in map(json.loads, predicted.out.splitlines())}
    assert len(set(found.values())) > 1
    exported = cli("stage=export", "experiment=transcribe", f"folder={tmp_path / 'back'}")
    assert exported.status == 0, exported.err
    assert exported.record("export")["export"]["difference"] < 1e-4
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    assert model.generation_config.language == "de"
    processor = transformers.WhisperProcessor.from_pretrained(tmp_path / "back")
    waves = [soundfile.read(path, dtype="float32")[0] for path in found]
    inputs = processor(waves, sampling_rate=RATE, return_tensors="pt").input_features
    ids = model.generate(inputs, max_new_tokens=6)
    assert [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)] == list(found.values())

    further = cli(*on(manifest, tmp_path / "back", "strategy=lora", "strategy.rank=2", "backbone.checkpoint=true"))
    assert further.status == 0, further.err
    assert "is not set" not in further.err  # the language is that of the export
    assert further.record("finetune")["cost"]["trained_parameters"] < record["cost"]["trained_parameters"] / 5


def test_a_model_is_compared_with_the_untouched_one(cli, whisper, manifest):
    few = ("trainer.max_steps=2", "trainer.val_check_interval=1", "transfer.labels=[all]", "transfer.seeds=1")
    outcome = cli(
        *("stage=transfer", "experiment=transcribe", f"data.root={manifest}", f"transfer.starts=[hf:{whisper}]"),
        *(*SMALL, *few, "data.frames.language=de", "objective.length=2"),
    )
    assert outcome.status == 0, outcome.err
    report = json.loads(next(outcome.folder.glob("transfer/transcribe/*/report.json")).read_text())
    assert "untouched" in json.dumps(report)
    assert "failed" not in outcome.err


def test_parts_of_long_recordings_are_selected_by_offset_and_duration(cli, whisper, manifest, tmp_path):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    wave = np.concatenate([soundfile.read(manifest.parent / row["audio"])[0][: RATE // 4] for row in rows])
    soundfile.write(tmp_path / "long.wav", wave, RATE)
    assert len(wave) > SECONDS * RATE
    parts = [{**row, "audio": "long.wav", "offset": n / 4, "duration": 0.25} for n, row in enumerate(rows)]
    path = tmp_path / "parts.jsonl"
    path.write_text("\n".join(map(json.dumps, parts)))
    assert cli(*on(path, whisper, "data.frames.language=de")).status == 0
    path.write_text("\n".join(json.dumps({**row, "audio": "long.wav"}) for row in rows))
    outcome = cli(*on(path, whisper, "data.frames.language=de"))
    assert outcome.status == 2
    assert f"is 5.0 s long; with it, 14 recordings are longer than the {SECONDS} s" in outcome.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("data.frames.language=latin",),
            "data.frames.language=latin: this Whisper has no such language; it has de, en, zh",
        ),
        (("data.frames.task=summarize",), "data.frames.task=summarize: must be transcribe or translate"),
        (("objective.beams=0",), "objective.beams=0: must be"),
        (("objective.normalizer=german",), "objective.normalizer=german: must be"),
        (("data.text=label",), "column label"),
    ],
)
def test_settings_that_cannot_be_are_refused(cli, whisper, manifest, words, message):
    outcome = cli(*on(manifest, whisper, *words))
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert message in outcome.error


def test_other_models_and_bad_texts_are_refused(cli, whisper, manifest, tmp_path):
    encoder = cli(*on(manifest, saved_folder(tmp_path / "hubert", "hubert", ctc=False)))
    assert "needs a backbone that has a decoder, unlike this backbone=huggingface_speech" in encoder.error
    decoder = cli(*on(manifest, saved_decoder(tmp_path / "llama")))
    assert "backbone=huggingface takes text, but data=audio_table is speech" in decoder.error
    recordings = ("stage=finetune", "experiment=recordings", f"data.root={manifest}", "objective=ctc", *FAST)
    labels = cli(*recordings, f"init=hf:{whisper}")
    assert "a Whisper has no targets of kind text: use objective=transcription" in labels.error
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    path = manifest.parent / "bad.jsonl"
    path.write_text(
        "\n".join(json.dumps({**row, "text": " " if n == 3 else row["text"]}) for n, row in enumerate(rows))
    )
    empty = cli(*on(path, whisper))
    assert "row 4: the text (column text) is empty" in empty.error
    path.write_text("\n".join(json.dumps({**row, "text": "low " * 40}) for row in rows))
    long = cli(*on(path, whisper))
    assert "14 of 14 texts are longer than the 32 tokens of the decoder" in long.error
    assert {one.status for one in (encoder, decoder, labels, empty, long)} == {2}
    truncated = cli(*on(path, whisper, "data.frames.too_long=truncate", "objective.metric=loss"))
    assert truncated.status == 0, truncated.err
