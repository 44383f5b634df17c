"""Recordings: file formats, cached features, splits by speaker, and errors for damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.preprocess import rebuild
from warmstart.data.preprocess.speech import Preprocessor
from warmstart.data.preprocess.transcripts import alphabet, spell
from warmstart.data.preprocess.waveform import Preprocessor as Waveform
from warmstart.data.readers.sounds import read_sounds
from warmstart.data.sources.audio.audio_table import AudioTable
from warmstart.data.sources.audio.spoken_digits import SpokenDigits
from warmstart.data.transforms.frames import FrequencyMasks, TimeMasks, TimeStretch, VocalTractLengthPerturbation
from warmstart.training import teacher


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def frames(**settings) -> Preprocessor:
    return Preprocessor(**{"rate": 8000, "longest": 10.0, **settings})


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def table(*waves: np.ndarray, rate: int = 8000) -> pd.DataFrame:
    names = [f"clip {number}" for number in range(len(waves))]
    return pd.DataFrame({"audio": pd.Series(list(waves), dtype=object), "rate": rate, "file": names})


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_stereo_file_of_any_kind_and_rate_gives_the_frames_of_its_mix(tmp_path: Path, suffix: str):
    left, right = tone(400, 0.5, 16_000), tone(1500, 0.5, 16_000)
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, np.stack([left, right], 1), 16_000)
    found = read_sounds([path], [str(path)])
    mix = frames(normalize="global", mean=[0.0] * 40, std=[1.0] * 40)
    file, wave = mix.encode(found), mix.encode(table((left + right) / 2, rate=16_000))
    loudest = {int(band) for rows in (file, wave) for band in rows.values[5:20].reshape(-1, 40).mean(0).argsort()[-2:]}
    assert len(loudest) <= 3  # the bands of both tones, whatever compressed them


def test_frames_are_those_of_a_hand_computation():
    wave = np.random.default_rng(0).normal(size=800).astype(np.float32)
    rows = frames(stack=1, normalize="global", mean=[0.0] * 40, std=[1.0] * 40).encode(table(wave))
    assert rows.values.shape == (1 + (800 - 200) // 80, 1, 40)
    piece = wave[80:280] * np.hanning(200)
    power = np.abs(np.fft.rfft(piece, 256)) ** 2
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(129, 40, 0.0, 4000.0, 8000, mel_scale="htk", triangularize_in_mel_space=True)
    expected = np.log(np.maximum(power @ bank, 1e-6))
    np.testing.assert_allclose(rows.values[1, 0].astype(np.float64), expected, atol=0.02)


def test_an_utterance_is_the_same_alone_and_padded_and_after_saving():
    short, long = (np.random.default_rng(n).normal(size=size).astype(np.float32) for n, size in ((0, 1500), (1, 6000)))
    one = frames()
    one.fit(table(short, long))
    both = one.encode(table(short, long))
    x, mask = both.padded(slice(0, 2))
    alone = rebuild(json.loads(json.dumps(one.state()))).encode(table(short))
    assert torch.equal(x[0][mask[0]], alone[slice(0, 1)][0])
    assert not x[0][~mask[0]].any()
    values = x[1].float().flatten(0, 1)
    assert values.mean(0).abs().max() < 0.01
    assert (values.std(0) - 1).abs().max() < 0.02


def test_frames_of_a_speaker_are_standardized_with_all_recordings_of_the_same_split():
    noise = np.random.default_rng(0)
    x = table(*(noise.normal(0, 0.1 + (n % 2), 2000 + 500 * n).astype(np.float32) for n in range(6)))
    one, speakers = frames(normalize="speaker", cluster="who"), np.array(["loud", "quiet"] * 3, dtype=object)
    rows = one.grouped(Rows(x, cluster=speakers))
    for name in ("loud", "quiet"):
        own = one.encode(rows.take(np.flatnonzero(speakers == name)).x)
        values = np.concatenate([own[slice(n, n + 1)][0].flatten(0, 1)[:-1] for n in range(3)]).astype(np.float32)
        assert np.abs(values.mean(0)).max() < 0.15
        assert np.abs(values.std(0) - 1).max() < 0.15
    first = one.encode(rows.take([0]).x)
    assert np.array_equal(first.values, one.encode(rows.x).values[: len(first.values)])
    assert not np.array_equal(first.values, frames().encode(x[:1]).values)  # by itself
    with pytest.raises(UserError, match=r"normalize=speaker needs .*data.cluster"):
        one.grouped(Rows(x))
    with pytest.raises(UserError, match="of brief have 1 frame"):
        one.grouped(Rows(table(tone(300, 0.025, 8000)), cluster=np.array(["brief"], dtype=object)))


def spoken(speaker: str, count: int) -> Rows:
    noise = np.random.default_rng(len(speaker))
    x = table(*(noise.normal(0, len(speaker), 800 + 100 * n).astype(np.float32) for n in range(count)))
    return Rows(x, np.arange(count) % 2, np.array([speaker] * count, dtype=object))


def test_unlabelled_recordings_are_standardized_per_speaker():
    parts = (spoken("ann", 8), spoken("bo", 4), spoken("c", 4))
    source = SimpleNamespace(modality="speech", preprocessor=lambda: frames(normalize="speaker"))
    data = TaskDataModule(source, "category", 4, 0, labels_per_class=1, unlabelled_seed=1)
    data.prepare(Splits(*parts, ("a", "b"), unlabelled=spoken("dora", 3)))
    assert len(data.parts["unlabelled"][0]) == 6 + 3


def test_a_teacher_standardizes_recordings_per_speaker(monkeypatch: pytest.MonkeyPatch):
    one, rows = frames(normalize="speaker", cluster="who"), spoken("ann", 3)
    loud = Rows(rows.x.assign(audio=[values * 9 for values in rows.x.audio]), rows.y, rows.cluster)

    def mean(config, start, kind, preprocessor, shape) -> SimpleNamespace:
        """A teacher whose output is the mean of its input."""
        return SimpleNamespace(
            batches=lambda x: [([n], x[slice(n, n + 1)][0].float().mean().view(1, 1)) for n in range(len(x))]
        )

    monkeypatch.setattr(teacher, "load_teacher", mean)
    start = SimpleNamespace(preprocessor=one.state(), name="a model")
    data = SimpleNamespace(source=SimpleNamespace(preprocessor=frames), given={"quiet": rows, "loud": loud})
    quiet, scaled = (teacher.outputs_of(None, start, "features", "0", data, part)[0] for part in data.given)
    assert torch.allclose(quiet, scaled, atol=1e-2)


def test_the_speaker_in_a_message_and_in_a_prediction_is_that_of_the_model(tmp_path: Path, capfd):
    one = frames(normalize="speaker").adapted(frames())
    with pytest.raises(UserError, match=r"the model of init.* or choose another init"):
        one.grouped(Rows(table(tone(300, 0.5, 8000))))
    capfd.readouterr()
    Waveform(8000, [10], [5]).adapted(frames(normalize="speaker"))
    assert "data.frames.normalize=speaker is not used" in capfd.readouterr().err
    soundfile.write(tmp_path / "one.wav", tone(300, 0.5, 8000), 8000)
    (tmp_path / "manifest.csv").write_text("audio,who\none.wav,\n")
    given = frames(cluster="who").read(str(tmp_path / "manifest.csv"))
    assert len(given) == 1
    with pytest.raises(UserError, match=r"have no cluster .*: name them, or remove these rows$"):
        given.cluster()


def test_digits_are_split_by_speaker_or_as_published():
    by_speaker = SpokenDigits(frames).load("category")
    speakers = [{name.split("_")[1] for name in part.x.file} for part in (by_speaker.train, by_speaker.test)]
    assert speakers == [{"george", "jackson", "lucas", "nicolas"}, {"theo", "yweweler"}]
    assert [len(part) for part in (by_speaker.train, by_speaker.validation, by_speaker.test)] == [600, 200, 400]
    official = SpokenDigits(frames, split="official").load("category")
    assert {int(name.split("_")[2]) for name in official.test.x.file} == set(range(5))
    names = [set(part.x.file) for part in (official.train, official.validation, official.test)]
    assert not names[0] & names[1]
    assert not names[1] & names[2]
    assert not names[0] & names[2]
    labels = [official.labels[number] for number in official.train.y]
    assert all(label == "zero" for label, name in zip(labels, official.train.x.file) if name.startswith("0"))


def test_the_speaker_is_a_class_where_those_who_test_are_known():
    splits = SpokenDigits(frames, split="official", classes="speaker").load("category")
    assert splits.labels == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    named = [splits.labels[number] for number in splits.test.y]
    assert named == [name.split("_")[1] for name in splits.test.x.file]


def test_connected_digits_are_strung_alike_every_time_and_spelled():
    source = SpokenDigits(frames, connect=[2, 4])
    one, two = source.load("text"), source.load("text")
    assert all(np.array_equal(a, b) for a, b in zip(one.train.x.audio, two.train.x.audio))
    words = [[text.split() for text in part.y] for part in (one.train, one.test)]
    assert {len(row) for rows in words for row in rows} == {2, 3, 4}
    single = SpokenDigits(frames).load("category").train.x.set_index("file")
    name = one.train.x.file[0]
    parts = [len(single.audio[clip]) for clip in name.split("+")]
    assert sum(parts) < len(one.train.x.audio[0]) < sum(parts) + len(parts) * 0.15 * 8000
    data = TaskDataModule(source, "text", 8, order_seed=0).prepare()
    batch = next(iter(data.train_dataloader()))
    assert (batch.y >= -1).all()
    assert batch.y.shape[0] == batch.x.shape[0] == 8


def test_pieces_of_words_spell_what_characters_do():
    texts = ["one two", "two three", "three one"]
    labels = alphabet(texts, pieces=24)
    assert "▁two" in labels
    assert len(labels) <= 24
    for row, text in zip(spell(texts, labels, texts), texts):
        assert "".join(labels[number] for number in row) == "".join(f"▁{word}" for word in text.split())
    assert len(alphabet(texts)) == len({*"onetwothree"}) + 1


def test_a_manifest_keeps_speakers_in_one_part_and_all_targets_in_the_same(tmp_path: Path):
    rows = []
    for number in range(40):
        name = f"{number}.wav"
        soundfile.write(tmp_path / name, tone(200 + 50 * (number % 2), 0.3, 8000) * (1 + number) / 50, 8000)
        rows.append({"audio_filepath": name, "text": "high low", "label": "ab"[number % 2], "who": f"s{number % 5}"})
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = AudioTable(frames, str(tmp_path / "manifest.jsonl"), cluster="who")
    splits = source.load("category")
    speakers = [{int(Path(f).stem) % 5 for f in part.x.file} for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, speakers)) == 5
    for kind in ("text", None):
        assert list(source.load(kind).test.x.file) == list(splits.test.x.file)


def test_recordings_without_a_class_serve_pretraining_only(tmp_path: Path):
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", tone(200 + number, 0.3, 8000), 8000)
    rows = [{"audio": f"{n}.wav", "label": "ab"[n % 2] if n < 14 else None} for n in range(20)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = AudioTable(frames, str(tmp_path / "m.jsonl"))
    named, unnamed = source.load("category"), source.load(None)
    assert named.labels == ("a", "b")
    assert sum(map(len, (named.train, named.validation, named.test))) == 14
    assert sum(map(len, (unnamed.train, unnamed.validation, unnamed.test))) == 20


def broken(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    soundfile.write(path, tone(300, 0.3, 8000), 8000)
    if name == "truncated.wav":
        path.write_bytes(path.read_bytes()[:20])
    elif name == "empty.wav":
        path.write_bytes(b"")
    elif name == "nothing.wav":
        soundfile.write(path, np.zeros(0, np.float32), 8000)
    elif name == "silent.wav":
        soundfile.write(path, np.zeros(900, np.float32), 8000)
    elif name == "nan.wav":
        soundfile.write(path, np.full(900, np.nan, np.float32), 8000, subtype="FLOAT")
    elif name == "picture.wav":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return path


@pytest.mark.parametrize("name", ["truncated.wav", "empty.wav", "nothing.wav", "silent.wav", "nan.wav", "picture.wav"])
def test_a_broken_recording_is_named_or_left_out(tmp_path: Path, name: str, capsys: pytest.CaptureFixture):
    paths = [broken(tmp_path, name), broken(tmp_path, "fine.wav")]
    with pytest.raises(UserError, match=name):
        read_sounds(paths, [str(path) for path in paths])
    kept = read_sounds(paths, [str(path) for path in paths], on_error="skip")
    assert list(kept.index) == [1]
    assert "skipped 1 of 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"audio": f"gone{n}.wav", "label": "a"} for n in range(7)], {}, "7 of 7 files that do not exist"),
        ([{"audio": "../fine.wav", "label": "a"}], {}, "not below"),
        ([{"audio": "/etc/passwd", "label": "a"}], {}, "not below"),
        ([{"audio": "", "label": "a"}, {"audio": "fine.wav", "label": "b"}], {}, "row 1: column audio names no file"),
        ([{"audio": "fine.wav", "label": "a"}] * 12, {}, "one class"),
        ([{"audio": "fine.wav", "name": "a"}] * 12, {}, "no column label"),
        (
            [{"audio": "fine.wav", "label": "ab"[n % 2], "who": "x"} for n in range(12)],
            {"cluster": "who"},
            "all .* rows are of one cluster",
        ),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path: Path, rows: list[dict], settings: dict, message: str):
    (tmp_path / "below").mkdir()
    broken(tmp_path / "below", "fine.wav")
    path = tmp_path / "below" / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=message) as error:
        AudioTable(frames, str(path), **settings).load("category")
    assert len(str(error.value)) < 700


def test_what_cannot_be_an_utterance_is_refused():
    with pytest.raises(UserError, match="shorter than a frame"):
        frames().encode(table(tone(300, 0.02, 8000)))
    with pytest.raises(UserError, match=r"clip 0 is 11\.0 s long"):
        frames().encode(table(tone(300, 11, 8000)))
    one = frames()
    assert one.fit_transcripts(["ab"]) == ("a", "b", "▁")
    with pytest.raises(UserError, match=r"does not fit into its 7 positions.*1 of 1"):
        one.align(table(tone(300, 0.15, 8000)), ["abbbb"], "text")
    with pytest.raises(UserError, match="'x' is in no training text"):
        spell(["ax"], ("▁", "a"), ["clip 0"])


def test_speech_is_changed_example_by_example_and_hidden_in_runs():
    torch.manual_seed(0)
    x = torch.rand(16, 30, 2, 20) + 1

    bands = (FrequencyMasks(5)(x) == 0).all(1).all(1)
    assert bands.any()
    assert bands.sum(1).max() <= 10
    gaps = (TimeMasks(4)(x) == 0).flatten(2).all(2)
    assert gaps.any()
    assert gaps.sum(1).max() <= 8
    vtlp = VocalTractLengthPerturbation(0.2)
    assert not torch.equal(vtlp(x)[0], vtlp(x)[0])
    moved = vtlp(torch.arange(20.0).expand(16, 30, 2, 20))
    assert moved[..., 10].amin() < 10 < moved[..., 10].amax()
    fast = TimeStretch(0.2)(torch.arange(60.0).view(1, 30, 2, 1).expand(16, 30, 2, 20))
    assert (fast.flatten(1, 2)[:, 30, 0] >= 30).all()
