"""Speech models of transformers in all stages, on spoken digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from tests.conftest import FAST
from tests.huggingface.test_speech import saved_folder

from warmstart.data.sources.audio.spoken_digits import read_packaged
from warmstart.run.saved import open_model

PLAIN = ("trainer.precision=null", "data.batch_size=12")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path_factory.getbasetemp() / "frames"))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A user's recordings of two digits, a folder for each, and a manifest."""
    table, rows = read_packaged(), []
    for row in table[table.text.isin(["one", "six"]) & (table.recording < 2)].itertuples():
        path = tmp_path / "mine" / row.text / f"{row.speaker}{row.recording}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, row.audio, row.rate)
        rows.append({"audio": str(path.relative_to(tmp_path / "mine")), "text": row.text})
    (tmp_path / "mine" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "mine"


def words(recordings: Path, objective: str) -> tuple[str, ...]:
    """The command line to finetune on one's own recordings."""
    data = "audio_folder" if objective == "classification" else "audio_table"
    root = recordings if objective == "classification" else recordings / "manifest.jsonl"
    own = (f"data={data}", f"data.root={root}", f"objective={objective}", *PLAIN, *FAST)
    return ("stage=finetune", "experiment=speech", *own)


def heard(back: Path, auto: str, recording: Path) -> tuple[torch.nn.Module, torch.Tensor]:
    """What transformers alone makes of a recording with an exported folder."""
    import soxr

    values, rate = soundfile.read(recording, dtype="float32")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(back)
    inputs = extractor(soxr.resample(values, rate, 16_000), sampling_rate=16_000, return_tensors="pt")
    model = getattr(transformers, auto).from_pretrained(back).eval()
    with torch.no_grad():
        return model, model(**inputs).logits[0].softmax(-1)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_classifier_is_finetuned_evaluated_predicted_and_exported(norm: str, cli, recordings: Path, tmp_path: Path):
    folder = saved_folder(tmp_path / "hubert", "hubert", norm, ctc=False)
    tuned = cli(*words(recordings, "classification"), f"init=hf:{folder}")
    assert tuned.status == 0, tuned.err
    record = tuned.record("finetune")
    assert record["parent"]["path"] == f"hf:{folder}"
    assert record["transfer"]["fraction"] == 1.0
    assert open_model(tuned.run("finetune") / "model").spec.seconds == 0.02
    evaluated = cli("stage=evaluate", "experiment=speech")
    assert evaluated.record("evaluate")["metrics"]["test/loss"] == pytest.approx(record["metrics"]["test/loss"])

    many = cli("stage=predict", f"input={recordings}").out.splitlines()
    assert len(many) == 24
    answer = json.loads(many[0])
    exported = cli("stage=export", "experiment=speech", f"folder={tmp_path / 'back'}")
    assert exported.status == 0, exported.err
    assert ("predict one by one" in exported.err) == (norm == "group")
    model, probabilities = heard(tmp_path / "back", "AutoModelForAudioClassification", Path(answer["file"]))
    assert probabilities.max().item() == pytest.approx(answer["probability"], abs=1e-4)
    assert model.config.id2label[probabilities.argmax().item()] == answer["label"]


def test_a_recogniser_keeps_its_head_and_is_evaluated_asked_exported_and_taken_up_again(
    cli, recordings: Path, tmp_path: Path
):
    folder = saved_folder(tmp_path / "wav2vec2", "wav2vec2")
    tuned = cli(*words(recordings, "ctc"), f"init=hf:{folder}", "optimizer.lr=1e-9")
    assert tuned.status == 0, tuned.err
    assert f"loaded the head of {folder}" in tuned.err
    record = tuned.record("finetune")
    assert record["transfer"]["head"] == "loaded"
    evaluated = cli("stage=evaluate", "experiment=speech")
    assert evaluated.record("evaluate")["metrics"]["test/loss"] == pytest.approx(record["metrics"]["test/loss"])

    predicted = cli("stage=predict", "experiment=speech", f"input={recordings / 'manifest.jsonl'}")
    assert predicted.status == 0, predicted.err
    answer = json.loads(predicted.out.splitlines()[0])
    assert set(answer) >= {"text", "confidence", "words"}
    assert all(0 <= word["start"] < word["end"] <= 1 for word in answer["words"])
    assert cli("stage=export", "experiment=speech", f"folder={tmp_path / 'back'}").status == 0
    _, probabilities = heard(tmp_path / "back", "AutoModelForCTC", Path(answer["file"]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert tokenizer.decode(probabilities.argmax(-1)).split() == answer["text"].split()

    again = cli(*words(recordings, "ctc"), f"init=hf:{tmp_path / 'back'}", "optimizer.lr=1e-9")
    assert again.record("finetune")["transfer"]["head"] == "loaded"
    first, second = (open_model(run / "model").head for run in again.runs("finetune"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_a_head_of_other_labels_is_not_taken_and_a_trunk_is_pretrained_further(cli, recordings: Path, tmp_path: Path):
    folder = saved_folder(tmp_path / "wavlm", "wavlm")
    (folder / "vocab.json").write_text('{"<pad>": 0, "|": 1, "a": 2}')
    contrast = ("objective=contrastive", "data/augment=noise", "feature_rows=0")
    own = ("data=audio_folder", f"data.root={recordings}", *PLAIN, *FAST)
    further = cli("stage=pretrain", "experiment=speech", *contrast, *own, f"init=hf:{folder}")
    assert further.status == 0, further.err
    tuned = cli(*words(recordings, "ctc"), f"init=hf:{folder}")
    assert "the head is initialized randomly" in tuned.err
    assert tuned.record("finetune")["transfer"]["head"] == "random"
    tuned = cli(*words(recordings, "classification"))
    assert tuned.record("finetune")["parent"]["id"] == further.record("pretrain")["id"]


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({"sampling_rate": None}, (), "has sampling_rate=None: set it to the rate of the model in Hz"),
        (
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            (),
            "for a WhisperFeatureExtractor",
        ),
        ({}, ("data/augment=frequency_masks",), "is for spectrograms, but this model takes waveforms"),
        ({}, ("backbone.pooling=cls",), "backbone.pooling=cls: a wav2vec2 supports mean pooling only"),
        ({}, ("objective=masked_frames",), "needs a backbone that can hide positions"),
    ],
)
def test_what_cannot_be_is_refused(cli, recordings: Path, tmp_path: Path, settings: dict, given: tuple, message: str):
    folder = saved_folder(tmp_path / "model", "wav2vec2", ctc=False, **settings)
    outcome = cli(*words(recordings, "classification"), f"init=hf:{folder}", *given)
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert message in outcome.error


def test_a_recording_without_a_frame_is_named_and_so_is_a_folder_without_settings(
    cli, recordings: Path, tmp_path: Path
):
    soundfile.write(recordings / "one" / "click.wav", np.ones(100, np.float32), 8000)
    folder = saved_folder(tmp_path / "model", "wav2vec2", ctc=False)
    outcome = cli(*words(recordings, "classification"), f"init=hf:{folder}")
    assert outcome.status == 2
    assert "click.wav is shorter than one frame of the model: it has 200 samples at 16000 Hz" in outcome.error
    (folder / "preprocessor_config.json").unlink()
    outcome = cli(*words(recordings, "classification"), f"init=hf:{folder}")
    assert outcome.status == 2
    assert "has no preprocessor_config.json" in outcome.error


def test_models_of_another_modality_are_refused_both_ways(cli, recordings: Path, tmp_path: Path):
    from tests.huggingface.test_text import saved_folder as text_folder

    outcome = cli(*words(recordings, "classification"), f"init=hf:{text_folder(tmp_path / 'bert', 'bert')}")
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert "backbone=huggingface takes text, but data=audio_folder is speech" in outcome.error
    outcome = cli("stage=finetune", f"init=hf:{saved_folder(tmp_path / 'hubert', 'hubert')}", *FAST)
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert "backbone=huggingface_speech takes speech, but data=digits is image" in outcome.error
