"""Class folders in all stages, and predictions for folders."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import FAST

TINY = ("backbone.width=16", "backbone.depth=1", "backbone.heads=2", "data.tokenizer.model=characters")


def test_a_folder_of_texts_is_finetuned_on_and_predicted(cli, tmp_path: Path):
    root = tmp_path / "mails"
    for split, rows in (("Train", 16), ("valid", 4), ("test", 4)):
        for label, word in (("01", "good"), ("1", "bad")):
            (root / split / label).mkdir(parents=True)
            for number in range(rows):
                (root / split / label / f"{number:02}.txt").write_text(f"a {word} day\nnumber {number} {split}\n")
    (root / "Train" / "01" / "notes.pdf").write_bytes(b"%PDF")
    tuned = cli(
        "stage=finetune", "init=scratch", "experiment=text", "data=text_folder", f"data.root={root}", *TINY, *FAST
    )
    assert tuned.status == 0, tuned.err
    assert "splits found: train 32, validation 8, test 8" in tuned.err
    assert "skipped 1 files that cannot be read here: Train/01/notes.pdf" in tuned.err
    predicted = cli("stage=predict", f"input={root / 'test' / '01'}")
    assert predicted.status == 0, predicted.err
    answers = [json.loads(line) for line in predicted.out.splitlines()]
    assert [answer["row"] for answer in answers] == [1, 2, 3, 4]
    assert [Path(answer["file"]).name for answer in answers] == ["00.txt", "01.txt", "02.txt", "03.txt"]
    assert {answer["label"] for answer in answers} <= {"01", "1"}
    refused = cli("stage=predict", f"input={root / 'test' / '01'}", "data.on_error=skip")
    assert refused.status == 2
    assert "on_error=skip is for inputs that are files" in refused.error
