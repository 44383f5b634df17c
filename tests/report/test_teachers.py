"""The warning that a teacher of initial weights was trained on labels."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.records import write_run

from warmstart.report.caveats import teacher_warnings
from warmstart.training.teacher import has_labels

pytestmark = pytest.mark.quick


def made(folder: Path, name: str, stage: str = "pretrain", **fields) -> dict[str, str]:
    """Write a run, and return the record of its model as a parent or teacher."""
    write_run(folder / name, {"id": name, "stage": stage, "status": "done", "parent": None, **fields})
    return {"id": name, "path": str(folder / name / "model"), "weights_sha256": "0"}


def test_initial_weights_from_other_runs_name_the_teachers_of_these(tmp_path: Path):
    distilled = made(tmp_path, "distilled", teacher={"id": None, "path": "hf:CLASSIFIER", "has_labels": True})
    further = made(
        tmp_path, "further", parent=distilled, teacher={"id": None, "path": "hf:ENCODER", "has_labels": False}
    )
    run = SimpleNamespace(record={"parent": further})
    named = [SimpleNamespace(bases=[], runs=[run]), SimpleNamespace(bases=[{"parent": distilled}], runs=[])]
    for transfer in named:
        (warning,) = teacher_warnings(transfer)
        assert warning.startswith("the teacher of the pretraining, hf:CLASSIFIER, was trained on labels")
    assert teacher_warnings(SimpleNamespace(bases=[], runs=[SimpleNamespace(record={"parent": None})])) == []


def test_a_teacher_has_labels_if_any_model_that_it_depends_on_has(tmp_path: Path):
    plain, tuned = made(tmp_path, "plain"), made(tmp_path, "tuned", "finetune")
    later = made(tmp_path, "later", teacher={**tuned, "has_labels": True})
    hub, pretrained = {"id": None, "path": "hf:NAME"}, {"stage": "pretrain"}
    found = [
        has_labels(SimpleNamespace(card=card), parent)
        for card, parent in (
            ({"stage": "hf"}, hub),
            ({"stage": "hf", "task": "sequence_classification"}, hub),
            (pretrained, plain),
            (pretrained, made(tmp_path, "continued", parent=tuned)),
            (pretrained, later),
        )
    ]
    assert found == [False, True, False, True, True]
