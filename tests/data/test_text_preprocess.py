"""Tokenizers: encoding and decoding, the cache, truncation, and features for a linear model."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.preprocess.tokenizing import MODELS
from warmstart.data.storage import cache

pytestmark = pytest.mark.quick

TEXTS = ["the cat sat on the mat.", "a dog ran to the cat, barking", "no animals here at all", "unbelievably good"] * 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def frame(texts: list[str] = TEXTS) -> pd.DataFrame:
    return pd.DataFrame({"text": texts})


def fitted(model: str = "wordpiece", **settings) -> Preprocessor:
    preprocessor = Preprocessor(model=model, vocabulary=300 if model == "bpe" else 60, **settings)
    preprocessor.fit(frame())
    return preprocessor


@pytest.mark.parametrize("model", sorted(MODELS))
def test_text_comes_back_and_a_rebuilt_tokenizer_does_the_same(model: str):
    preprocessor = fitted(model)
    x, mask = preprocessor.encode(frame(TEXTS[:4])).padded(slice(0, 4))
    vocabulary = preprocessor.vocabulary
    assert (x[:, 0] == vocabulary.begin).all()
    assert ((x == vocabulary.end).sum(1) == 1).all()
    assert torch_equal(mask, x != vocabulary.padding)
    assert int(x.max()) < vocabulary.size
    written = [preprocessor.decode(row).replace(" ", "") for row in x.tolist()]
    assert written == [text.replace(" ", "") for text in TEXTS[:4]]
    again = rebuild(json.loads(json.dumps(preprocessor.state())))
    assert torch_equal(again.encode(frame(TEXTS[:4])).padded(slice(0, 4))[0], x)
    assert again.state() == preprocessor.state()


def torch_equal(a, b) -> bool:
    return np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("model", sorted(MODELS))
def test_trained_again_on_the_same_texts_it_is_the_same_tokenizer(model: str, tmp_path: Path, monkeypatch):
    words = np.random.default_rng(0).choice([a + b + c for a in "abcdefgh" for b in "ijklmno" for c in "pqrst"], 4000)
    states = []
    for number in range(3):
        monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / str(number)))
        preprocessor = Preprocessor(model=model, vocabulary=400)
        preprocessor.fit(frame([" ".join(row) for row in words.reshape(400, 10)]))
        states.append(preprocessor.state())
    assert states[0] == states[1] == states[2]


def test_pieces_of_a_word_are_known_as_such():
    preprocessor = fitted()
    joined = set(preprocessor.vocabulary.joined)
    (row,) = preprocessor.encode(frame(["unbelievably good"])).padded(slice(0, 1))[0].tolist()
    starts = [number not in joined for number in row]
    assert sum(starts) == 4  # begin, two words, end


def test_texts_are_cut_once_and_read_from_the_cache_after_that(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    first = fitted().encode(frame())
    assert first.values.dtype == np.uint16
    assert isinstance(first.values, np.memmap)
    made = sorted(path.name for path in own_cache.rglob("*") if path.is_dir())
    monkeypatch.setattr(Preprocessor, "_write_tokens", None)
    again = fitted().encode(frame())
    assert np.array_equal(again.values, first.values)
    assert sorted(path.name for path in own_cache.rglob("*") if path.is_dir()) == made


def test_a_cache_entry_is_complete_or_absent(own_cache: Path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.entry("tokens", "name", fail, Path.exists)
    assert list((own_cache / "tokens").iterdir()) == []


def test_a_cache_entry_is_hashed_once_by_a_process(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    def opened() -> str:
        def make(folder: Path) -> None:
            (folder / "file").write_text("x")

        return cache.entry("tokens", "name", make, lambda folder: (folder / "file").read_text())

    assert opened() == "x"
    with monkeypatch.context() as patch:
        patch.setattr(cache, "check_folder", None)
        assert opened() == "x"
    (own_cache / "tokens/name/file").write_text("y")
    assert opened() == "x"


def test_what_killed_processes_left_in_the_cache_is_removed_after_a_day(own_cache: Path):
    old, new = (own_cache / "tokens" / f".{name}.01234567.tmp" for name in ("old", "new"))
    for folder, days in ((old, 2), (new, 0.5)):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
        for path in (folder / "half", folder):
            os.utime(path, times=(time.time() - days * 24 * 3600,) * 2)
    cache.entry("tokens", "name", lambda folder: None, Path.exists)
    assert sorted(path.name for path in (own_cache / "tokens").iterdir()) == [new.name, "name"]


@pytest.mark.parametrize("name", ["tokens/*/starts.npy", "tokens/*/bytes.npy", "tokenizers/*/tokenizer.json"])
def test_a_truncated_cache_entry_is_made_again(name: str, own_cache: Path):
    first = fitted().encode(frame())
    (path,) = own_cache.glob(name)
    path.write_bytes(path.read_bytes()[:-5])
    again = fitted().encode(frame())
    assert (len(again), again.size) == (len(first), first.size)


def test_what_is_too_long_is_counted_or_refused(capfd: pytest.CaptureFixture):
    long = frame([*TEXTS[:2], " ".join(TEXTS)])
    rows = fitted(context=30).encode(long)
    assert rows.padded(slice(0, 3))[0].shape == (3, 30)
    assert "1 of 3 rows are truncated" in " ".join(capfd.readouterr().err.split())
    with pytest.raises(UserError, match=r"1 of 3 rows.*context=30.*the first starts with.*too_long=truncate"):
        fitted(context=30, too_long="error").encode(long)
    assert len(fitted(context=30, too_long="error").untruncated(long)) == 3


def test_pairs_are_cut_so_that_both_are_seen():
    pairs = pd.DataFrame({"text": ["the cat"], "pair": [" ".join(TEXTS)]})
    preprocessor = fitted(context=30)
    (row,) = preprocessor.encode(pairs).padded(slice(0, 1))[0].tolist()
    assert len(row) == 30
    assert row.count(preprocessor.vocabulary.end) == 2
    assert row[-1] == preprocessor.vocabulary.end


def test_packing_keeps_both_texts_of_a_pair_complete():
    pairs = pd.DataFrame({"text": ["the cat"], "pair": [" ".join(TEXTS)]})
    rows = fitted(context=30).untruncated(pairs)
    assert len(rows) == 2
    assert len(rows.values) > 30
    assert rows.size == sum(len(text) for text in pairs.iloc[0])


def test_the_settings_of_a_task_go_with_the_tokenizer_of_the_pretraining():
    adapted = fitted().adapted(Preprocessor(model="bpe", context=32, columns=["sentence"]))
    assert adapted.tokenizer == fitted().tokenizer
    assert (adapted.context, adapted.columns) == (32, ["sentence"])


def test_a_prompt_with_characters_that_are_not_known_is_refused():
    preprocessor = fitted("characters")
    assert preprocessor.decode(preprocessor.prompt("the cat")) == "the cat"
    with pytest.raises(UserError, match="'é'"):
        preprocessor.prompt("caté")
    assert preprocessor.prompt("") == [preprocessor.vocabulary.begin]


def test_a_linear_model_sees_counts_of_length_one():
    flat = fitted().flat(fitted().encode(frame()))
    assert flat.shape == (20, fitted().vocabulary.size)
    assert np.allclose(flat.multiply(flat).sum(1), 1)


def test_windows_that_share_more_than_half_are_refused():
    with pytest.raises(UserError, match=r"data.tokenizer.stride=100: must be at most half of context=128"):
        Preprocessor(stride=100)


@pytest.mark.parametrize("model", ["bpe", "wordpiece", "characters"])
def test_a_tokenizer_trained_again_without_the_cache_is_the_same(model: str, tmp_path: Path, monkeypatch):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(300)]  # many equally frequent pairs
    texts = frame([" ".join(rng.choice(words, 20)) for _ in range(50)])
    found = set()
    for number in range(4):
        monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / str(number)))
        preprocessor = Preprocessor(model=model, vocabulary=400)
        preprocessor.fit(texts)
        found.add(preprocessor.tokenizer)
    assert len(found) == 1


@pytest.mark.parametrize(("model", "count"), [("bpe", 261), ("wordpiece", 43)])
def test_a_vocabulary_smaller_than_the_alphabet_is_refused(model: str, count: int):
    with pytest.raises(UserError, match=f"vocabulary=17 is too small: single characters need {count}"):
        Preprocessor(model, 17).fit(frame())


@pytest.mark.parametrize("change", [{"tokenizer": "junk"}, {"tokenizer": None}, {"roles": [1]}, {"context": None}])
def test_a_damaged_state_is_refused(change: dict):
    state = fitted().state()
    rebuild(state)
    with pytest.raises(UserError, match="the saved preprocessor is damaged"):
        rebuild({**state, **change})
    with pytest.raises(UserError, match="the saved preprocessor is damaged"):
        rebuild({key: value for key, value in state.items() if key != "tokenizer"})


def test_files_are_read_by_the_names_of_the_training_columns(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("one\ntwo\n")
    (tmp_path / "table.csv").write_text("sentence,other\none,1\ntwo,2\n")
    preprocessor = Preprocessor(columns=["sentence"])
    for name in ("lines.txt", "table.csv"):
        assert preprocessor.read(str(tmp_path / name)).x["text"].tolist() == ["one", "two"]
    (tmp_path / "pairs.jsonl").write_text('{"question": "q", "context": "c"}\n')
    pairs = Preprocessor(columns=["question", "context"]).read(str(tmp_path / "pairs.jsonl"))
    assert pairs.x.iloc[0].tolist() == ["q", "c"]
    with pytest.raises(UserError, match="no column question"):
        Preprocessor(columns=["question", "context"]).read(str(tmp_path / "table.csv"))
