"""Untrusted data sets: only files below the root are read, whatever the card, tables and links name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest

from warmstart.core.errors import UserError
from warmstart.data.readers.library import check_card
from warmstart.data.readers.splits import read_splits

pytestmark = pytest.mark.quick

CARD = "---\nconfigs:\n- config_name: default\n  {}\n---\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.csv").write_text("x\nsecret\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x\n01\n")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "entry",
    [
        *("../secret.csv", "sub/../../secret.csv", "..", "*/../../secret.csv", "..\\secret.csv", "~/secret.csv"),
        *("{tmp}/secret.csv", "file://{tmp}/secret.csv", "http://127.0.0.1:9/x.csv", "hf://datasets/a/b/x.csv"),
        *("zip://x.csv::a.zip", "C:/secret.csv"),
    ],
)
@pytest.mark.parametrize("form", ["text", "list", "split", "folder", "second", "yaml"])
def test_a_card_that_names_other_files_is_refused(entry: str, form: str, root: Path):
    entry = entry.format(tmp=root.parent)
    word = json.dumps(entry)
    forms = {
        "list": f"data_files: [a.csv, {word}]",
        "split": f"data_files: [{{split: train, path: [a.csv, {word}]}}]",
        "folder": f"data_dir: {word}",
        "second": f"data_files: a.csv\n- config_name: other\n  data_files: {word}",
    }
    text = CARD.format(forms.get(form, f"data_files: {word}"))
    (root / "README.md").write_text(CARD.format("data_files: a.csv") if form == "yaml" else text)
    if form == "yaml":
        (root / ".huggingface.yaml").write_text(text.replace("---\n", ""))
    with pytest.raises(UserError) as error:
        read_splits(str(root))
    assert f"names {entry}, which is not a path below it" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a.csv", "./a.csv", "*.csv", "**/a*", "a..csv"])
def test_a_card_may_name_what_is_below_it(name: str, root: Path):
    shutil.copy(root / "a.csv", root / "a..csv")
    (root / "README.md").write_text(CARD.format(f"data_files: {json.dumps(name)}"))
    assert read_splits(str(root))["train"].x.iloc[0] == "01"


@pytest.mark.parametrize("pattern", ["b.csv", "*.csv", "sub/*.csv"])
def test_a_link_that_leads_out_is_no_file_of_a_data_set_with_a_card(pattern: str, root: Path):
    (root / "b.csv").symlink_to("../secret.csv")
    (root / "sub").symlink_to("..")
    (root / "README.md").write_text(CARD.format(f"data_files: {json.dumps(pattern)}"))
    with pytest.raises(UserError, match=r"(b|sub/secret)\.csv is outside of it"):
        read_splits(str(root))


def test_what_a_card_calls_its_settings_is_not_sent_to_the_terminal(root: Path, capfd: pytest.CaptureFixture):
    (root / "README.md").write_text(CARD.format('data_files: a.csv\n  "\\e[31mevil": 1'))
    read_splits(str(root))
    assert "\x1b" not in "".join(capfd.readouterr())


def test_links_of_a_cache_of_the_hub_are_followed(root: Path):
    blobs, snapshot = root.parent / "hub" / "blobs", root.parent / "hub" / "snapshots" / "1"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    (blobs / "0").write_text("x\n01\n")
    (blobs / "1").write_text(CARD.format("data_files: a.csv"))
    (snapshot / "a.csv").symlink_to("../../blobs/0")
    (snapshot / "README.md").symlink_to("../../blobs/1")
    assert read_splits(str(snapshot))["train"].x.tolist() == ["01"]


def test_a_card_whose_aliases_expand_without_end_is_refused(root: Path):
    lists = "".join(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 12))
    (root / "README.md").write_text(f"---\na0: &a0 [x]\n{lists}configs: *a11\n---\n")
    with pytest.raises(UserError, match="aliases expand to more than 10,000 values"):
        read_splits(str(root))


def test_the_card_of_a_hub_is_checked_alike(root: Path, monkeypatch: pytest.MonkeyPatch):
    (root / "README.md").write_text(CARD.format("data_files: /etc/x.csv"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file, repo_type: root / file)
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *words: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=r"data.root=some/name: its README.md names /etc/x.csv"):
        read_splits("some/name")


@pytest.mark.parametrize("name", ["../../secret.arrow", "{tmp}/secret.arrow", "link.arrow"])
def test_a_saved_data_set_names_its_own_files_alone(name: str, root: Path):
    datasets.Dataset.from_dict({"x": ["secret"]}).save_to_disk(root.parent / "other")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": ["a"]})}).save_to_disk(root / "saved")
    assert read_splits(str(root / "saved"))["train"].x.tolist() == ["a"]
    shutil.copy(next((root.parent / "other").glob("*.arrow")), root.parent / "secret.arrow")
    (root / "saved" / "train" / "link.arrow").symlink_to(root.parent / "secret.arrow")
    state = root / "saved" / "train" / "state.json"
    files = [{"filename": name.format(tmp=root.parent)}]
    state.write_text(json.dumps({**json.loads(state.read_text()), "_data_files": files}))
    with pytest.raises(UserError, match=r"state.json names .*\.arrow, which is not a file in the folder"):
        read_splits(str(root / "saved"))
    (root / "saved" / "dataset_dict.json").write_text('{"splits": ["../../other"]}')
    with pytest.raises(UserError, match="splits"):
        read_splits(str(root / "saved"))


@pytest.mark.parametrize("name", ["../../secret.png", "/secret.png"])
def test_a_metadata_table_names_files_of_the_folder(name: str, root: Path):
    (root / "a.csv").rename(root / "metadata.csv")
    (root / "metadata.csv").write_text(f"file_name,label\n{name},cat\n")
    with pytest.raises(UserError, match=r"metadata.csv names .*secret.png, which is outside"):
        read_splits(str(root))


def test_a_card_without_files_of_its_own_is_none(root: Path):
    for text in ("no card", "---\n---\n", "---\n- a\n---\n", "---\nconfigs: {a: 1}\n---\n"):
        (root / "README.md").write_text(text)
        check_card(root / "README.md", "data.root=x")
