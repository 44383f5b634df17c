"""Strategies that use unlabelled rows, and which rows these are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from tests.strategy.test_strategies import STEPS, make, optimize, take

from warmstart.config import options
from warmstart.config.pipeline import validate_strong
from warmstart.core.batch import Batch, Rows, Splits, StepOutput
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.duplicates import overlap
from warmstart.data.loader import GatherLoader, Unlabelled
from warmstart.data.preprocess.vector import Preprocessor as VectorPreprocessor
from warmstart.main import CONF
from warmstart.strategy.fixmatch import FixMatch
from warmstart.strategy.pseudo_labels import PseudoLabels
from warmstart.strategy.self_training import SelfTraining
from warmstart.training.mean import RunningMean
from warmstart.transfer.arms import arm_config

FEW = ("stage=finetune", "init=scratch", "trainer.max_epochs=4", "data.labels_per_class=3", "visualization=[]")


def rows(first: int, count: int, clusters: list[str] | None = None) -> Rows:
    """Different rows of two classes; each cluster has as many."""
    x = np.arange(first, first + count, dtype=np.float32)[:, None] * np.array([1, -1], dtype=np.float32)
    cluster = None if clusters is None else np.repeat(np.array(clusters, dtype=object), count // len(clusters))
    return Rows(x, np.arange(count) % 2, cluster)


def prepared(splits: Splits, **settings) -> TaskDataModule:
    source = SimpleNamespace(modality="vector", preprocessor=VectorPreprocessor)
    return TaskDataModule(source, "category", 8, 0, unlabelled_seed=1, **settings).prepare(splits)


def values(x) -> set[float]:
    return set(np.asarray(x)[:, 0].tolist())


@pytest.mark.parametrize("folds", [None, 2])
def test_no_unlabelled_row_is_labelled_or_held_out_or_a_copy_of_such_a_row_or_of_its_cluster(folds, capfd):
    splits = Splits(
        rows(0, 80, [f"speaker {number}" for number in range(20)]),
        rows(100, 8, ["validation"]),
        rows(200, 8, ["test"]),
        ("a", "b"),
        unlabelled=Rows(rows(300, 12).x, None, np.repeat(np.array(["test", "other", "speaker 1"], dtype=object), 4)),
    )
    splits.train.x[[50, 51]] = splits.test.x[0], splits.validation.x[3]
    splits.unlabelled.x[5] = splits.test.x[1]
    data = prepared(splits, labels_per_class=3, folds=folds)
    unlabelled = values(data.parts["unlabelled"][0])
    labelled, held_out = values(data.parts["train"][0]), values(data.parts["validation"][0])
    assert unlabelled.isdisjoint(labelled | held_out | values(splits.test.x))
    found = data.unlabelled_rows(splits)
    assert values(found.x) == unlabelled
    assert set(found.cluster).isdisjoint({"test", *data.validation_rows(splits).cluster})
    assert {304, 306, 307} < unlabelled  # without a target in the source, of another cluster
    if folds is None:
        expected = set(range(80)) - labelled - {50, 51} | {304, 306, 307, *range(308, 312)}
        assert unlabelled == expected
        assert "unlabelled rows are copies of validation or test rows: they are not used" in capfd.readouterr().err
    else:
        assert (
            len([value for value in unlabelled if value < 80]) < 80 - 6 - 2
        )  # without the other rows of the speakers of the fold


def test_without_unlabelled_rows_it_is_an_error():
    splits = Splits(rows(0, 8), rows(100, 4), rows(200, 4), ("a", "b"))
    with pytest.raises(UserError, match="all 8 training rows are labelled"):
        prepared(splits)
    splits.unlabelled = Rows(rows(300, 5).x)
    assert len(prepared(splits).parts["unlabelled"][0]) == 5


def test_if_all_are_copies_or_of_other_clusters_the_message_names_these_and_not_labels():
    splits = Splits(rows(0, 8), rows(100, 4), rows(200, 4), ("a", "b"), unlabelled=Rows(rows(200, 2).x))
    with pytest.raises(UserError, match="all rows without labels are copies of validation or test rows"):
        prepared(splits)
    clusters = (["train"], ["validation"], ["test"])
    parts = [rows(100 * number, 8, names) for number, names in enumerate(clusters)]
    held = Rows(rows(300, 4).x, None, np.array(["validation"] * 4, dtype=object))
    with pytest.raises(UserError, match="or of their clusters"):
        prepared(Splits(*parts, ("a", "b"), unlabelled=held))


def test_a_search_for_near_copies_that_is_skipped_is_reported(monkeypatch: pytest.MonkeyPatch, capfd):
    x = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    monkeypatch.setattr(overlap, "MOST_PAIRS", 10)
    found = overlap.copies(Rows(x[:6]), [Rows(x[5:7]), Rows(x[5:9])], VectorPreprocessor())
    assert found.tolist() == [5]
    assert capfd.readouterr().err.count("6 unlabelled rows are too many to search for near copies") == 1


def test_labelled_rows_keep_their_order_and_unlabelled_rows_are_a_function_of_the_step():
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    alone, loader, resumed = (GatherLoader(x, y, 4, seed=3) for _ in range(3))
    for one in (loader, resumed):
        one.unlabelled = Unlabelled(torch.arange(100.0, 111)[:, None], 4, seed=5)
    first = [batch for _ in range(4) for batch in loader]
    assert [batch.y.tolist() for batch in first] == [batch.y.tolist() for _ in range(4) for batch in alone]
    seen = torch.cat([batch.unlabelled.x for batch in first]).flatten()
    assert {len(batch.unlabelled.x) for batch in first} == {4}
    assert len(seen[:8].unique()) == 8  # no row twice before all full batches are used
    assert len(seen.unique()) == 11
    resumed.load_state_dict({"epoch": 1, "position": 4})
    rest = [batch for _ in range(3) for batch in resumed]
    for one, two in zip(first[4:], rest, strict=True):
        assert torch.equal(one.x, two.x)
        assert torch.equal(one.unlabelled.x, two.unlabelled.x)


class Logits:
    """An objective whose outputs are the inputs."""

    def predict(self, backbone, batch: Batch) -> torch.Tensor:
        return batch.x

    def step(self, backbone, batch: Batch) -> StepOutput:
        return StepOutput(torch.zeros(()), len(batch.x), batch.x)


def test_only_confident_rows_are_trained_and_the_strong_view_gets_the_labels_of_the_weak_one():
    weak = torch.tensor([[4.0, 0.0], [0.3, 0.0], [0.0, 4.0]])
    strong = torch.zeros(3, 2, requires_grad=True)
    batch = Batch(torch.zeros(2, 2), torch.tensor([0, 1]), unlabelled=Batch(weak, strong=strong))
    output = PseudoLabels(0.9, align=False).add(StepOutput(torch.zeros(()), 2), Logits(), None, batch, 2.0)
    assert output.measures["pseudo_labels"] == pytest.approx(2 / 3)
    assert output.loss.item() == pytest.approx(2 * np.log(2) * 2 / 3)
    output.loss.backward()
    assert strong.grad.sign().tolist() == [[-1, 1], [0, 0], [1, -1]]


def test_alignment_balances_the_classes_of_biased_predictions_and_survives_a_resume():
    generator = torch.Generator().manual_seed(0)
    weak = torch.randn(400, 2, generator=generator) + torch.tensor([1.0, 0.0])
    counts = {}
    for align in (False, True):
        labels = PseudoLabels(0.01, align)
        strong = torch.zeros(400, 2, requires_grad=True)
        batch = Batch(torch.zeros(2, 2), torch.tensor([0, 1]), unlabelled=Batch(weak, strong=strong))
        output = Logits().step(None, batch)
        labels.count(output, batch)
        labels.add(output, Logits(), None, batch, 1.0).loss.backward()
        counts[align] = int((strong.grad[:, 0] < 0).sum())
    assert counts[False] > 280
    assert 150 < counts[True] < 250
    again = FixMatch()
    again.load_state_dict(labels.state_dict())
    assert again.unlabelled_rows == 400
    for name in ("labels", "predictions"):
        assert torch.equal(again.state[name], labels.state[name])


@pytest.mark.parametrize(
    "strategy", [SelfTraining(0.01, warmup=0.5), FixMatch(0.01)], ids=["self_training", "fixmatch"]
)
def test_a_class_that_the_first_batch_lacks_is_still_predicted(strategy):
    weak, strong = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.zeros(2, 2, requires_grad=True)
    batch = Batch(torch.zeros(3, 2), torch.tensor([0, 0, 0]), unlabelled=Batch(weak, strong=strong))
    strategy.progress = 0.6
    strategy.step(Logits(), None, batch).loss.backward()
    assert strong.grad.sign().tolist() == [[-1, 1], [1, -1]]


def test_warm_up_and_ramp():
    batch = Batch(torch.zeros(2, 2), torch.tensor([0, 1]), unlabelled=Batch(torch.tensor([[9.0, 0.0], [0.0, 9.0]])))
    found = {}
    for strategy in (SelfTraining(warmup=0.5), FixMatch()):
        for strategy.progress in (0.0, 0.4, 0.5, 1.0):
            found[type(strategy).__name__, strategy.progress] = strategy.step(Logits(), None, batch).loss.item()
    assert found["SelfTraining", 0.4] == found["FixMatch", 0.0] == 0
    assert found["SelfTraining", 0.5] == found["SelfTraining", 1.0] == found["FixMatch", 0.5] > 0
    assert 0 < found["FixMatch", 0.4] < found["FixMatch", 0.5]


def test_a_student_starts_each_round_at_the_start_of_the_run_with_the_model_before_as_its_teacher():
    module, batch = make("noisy_student", "resnet", confidence=0.01)
    batch.unlabelled = Batch(torch.randn(8, 3, 16, 16))
    optimizer, schedule = optimize(module)
    strategy, initial = module.strategy, {name: value.clone() for name, value in module.state_dict().items()}
    for step in range(STEPS):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        strategy.progress = step / STEPS
        is_reset = strategy.start_step(module.objective, module.backbone)
        assert is_reset == (step in (2, 4))
        if is_reset:
            assert all(torch.equal(value, initial[name]) for name, value in module.state_dict().items())
            teacher = strategy.teacher.state_dict()
            assert all(torch.equal(before[name], value) for name, value in teacher.items())
            assert not any(torch.equal(before[name], initial[name]) for name, _ in module.named_parameters())
        take(module, batch, optimizer, schedule, step)
        assert strategy.unlabelled_rows == 8 * max(0, step - 1)
        if strategy.teacher is not None:
            assert all(torch.equal(teacher[name], value) for name, value in strategy.teacher.state_dict().items())


def test_a_reset_restarts_the_optimizer():
    steps = {}
    for strategy in ("noisy_student", "full"):
        module, batch = make(strategy, "mlp")
        optimizer, schedule = optimize(module)
        for step in range(STEPS):
            take(module, batch, optimizer, schedule, step)
        (steps[strategy],) = {int(state["step"]) for state in optimizer.state.values()}
    assert steps == {"noisy_student": STEPS // 3, "full": STEPS}


def test_soft_targets_are_the_probabilities_of_the_teacher():
    class Teacher(Logits):
        def predict(self, backbone, batch: Batch) -> torch.Tensor:
            return torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.1, 0.0]])

    p = Teacher().predict(None, None).softmax(-1)
    kept = torch.tensor([1.0, 1.0, 0.0])
    for soft, targets in ((True, p), (False, torch.eye(2)[p.argmax(-1)])):
        strong = torch.zeros(3, 2, requires_grad=True)
        batch = Batch(torch.zeros(2, 2), torch.tensor([0, 1]), unlabelled=Batch(torch.zeros(3, 2), strong=strong))
        labels = PseudoLabels(0.6, False, soft)
        labels.add(StepOutput(torch.zeros(()), 2), Logits(), None, batch, 1.0, (Teacher(), None)).loss.backward()
        assert torch.allclose(strong.grad, (0.5 - targets) * kept[:, None] / 3)


def test_steps_of_the_warm_up_do_not_lower_the_share_of_pseudo_labels():
    mean, resumed = RunningMean(), RunningMean()
    for measures in ({}, {}, {"pseudo_labels": torch.tensor(0.5)}):
        mean.update(StepOutput(torch.zeros(()), 4, measures=measures))
    resumed.load_state_dict(mean.state_dict())
    assert mean.measured() == resumed.measured() == {"pseudo_labels": 0.5}


def test_during_the_warm_up_a_run_equals_full_finetuning_and_afterwards_not(cli):
    noisy = (*FEW, "backbone.dropout=0.2", "data/augment=shift", "data.augment.shift.pixels=1", "test=false")
    plain = cli(*noisy).record("finetune")
    self_training = (*noisy, "strategy=self_training", "data.unlabelled=true", "strategy.confidence=0.05")
    runs = [cli(*self_training, f"strategy.warmup={share}").record("finetune") for share in (0.99, 0.2)]
    full, warm, trained = (run["metrics"] for run in (plain, *runs))
    assert {name: warm[name] for name in full} == full
    assert trained["val/loss"] != full["val/loss"]
    assert 0 < trained["train/pseudo_labels"] <= 1
    before, same, more = (run["cost"]["examples"] for run in (plain, *runs))
    assert before == same < more


def test_without_strong_augmentation_fixmatch_says_what_it_does_instead(cli):
    outcome = cli(*FEW, "strategy=fixmatch", "data.unlabelled=true", "test=false")
    assert outcome.status == 0
    assert outcome.err.count("rows with pseudo-labels only have data.augment and dropout") == 1
    assert "finetuning on 30 labelled rows and 1,227 unlabelled rows" in outcome.err


def test_a_transfer_that_was_saved_before_unlabelled_rows_existed_has_the_same_arms(composed):
    config = composed("stage=transfer")
    now = arm_config(config, "scratch", "scratch", 5, 0)
    OmegaConf.set_struct(now, False)
    assert now.data.pop("unlabelled") is False
    OmegaConf.set_struct(config, False)
    del config.data.unlabelled
    assert arm_config(config, "scratch", "scratch", 5, 0) == now


UNLABELLED = ("strategy=self_training", "data.unlabelled=true")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("data.unlabelled=true",), "strategy=full uses labelled rows only: choose strategy=fixmatch or"),
        (("strategy=fixmatch",), "strategy=fixmatch needs unlabelled rows: add data.unlabelled=true"),
        ((*UNLABELLED, "data.labels_per_class=null"), "all 1,257 training rows are labelled"),
        ((*UNLABELLED, "strategy.confidence=1"), "strategy.confidence=1: must be a number above 0 and below 1"),
        (
            ("strategy=noisy_student", "data.unlabelled=true", "strategy.rounds=1"),
            "strategy.rounds=1: must be a whole number, 2 or more",
        ),
        ((*UNLABELLED, "data=vectors", "objective=regression"), "needs one class per row, which objective=regression"),
        ((*UNLABELLED, "data/augment@data.strong=time_masks"), "data/augment@data.strong=time_masks is not for image"),
        (
            (*UNLABELLED, "backbone=vit", "data/augment@data.strong=crop", "data.strong.crop.size=4"),
            "data.strong.crop.size=4: backbone=transformer has positions for one size only: set data.strong.crop.size",
        ),
        ((*UNLABELLED, "data/augment@data.strong=mixup"), "data/augment@data.strong=mixup is not for image"),
    ],
)
def test_what_does_not_fit_is_refused(cli, words: tuple[str, ...], reason: str):
    outcome = cli(*FEW, *words)
    assert outcome.status == 2
    assert reason in outcome.error
    assert len(outcome.error.splitlines()) == 1


STRONG = "data/augment@data.strong=shift"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("strategy=full", STRONG), f"{STRONG}: the strategy uses no strong augmentations: remove"),
        ((*UNLABELLED, "+data.strong.flip._target_=warmstart.data.transforms.images.Flip"), "uses no strong augm"),
        (("stage=transfer", "transfer.arms=[scratch]", STRONG), f"{STRONG}: no arm in transfer.arms uses strong"),
    ],
)
def test_strong_augmentations_that_nothing_would_use_are_refused(command, words: tuple[str, ...], reason: str):
    refused = command("stage=finetune", "init=scratch", "logger=[]", *words)
    assert refused.status == 2
    assert reason in refused.error
    assert len(refused.error.splitlines()) == 1


def test_those_of_an_experiment_are_for_any_strategy(composed, monkeypatch):
    words = ("stage=finetune", "experiment=cifar10", "data.labels_per_class=5")
    config = composed(*words)
    assert config.data.strong
    monkeypatch.setattr(options, "overrides", lambda: words)
    assert validate_strong(config) is config
    monkeypatch.setattr(options, "overrides", lambda: (*words, "data.strong.crop.size=24"))
    with (
        initialize_config_dir(version_base="1.3", config_dir=str(CONF)),
        pytest.raises(UserError, match="uses no strong augmentations: remove it, or choose strategy=fixmatch"),
    ):
        validate_strong(config)
