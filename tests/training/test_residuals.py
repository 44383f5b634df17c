"""Predictions and residuals of a regression in TensorBoard."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from warmstart.training.visualization.residuals import Residuals

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("target", "tags"), [("value", ["test predicted against true", "test residuals"]), ("category", [])]
)
def test_both_figures_are_drawn_for_values_only(target: str, tags: list[str]):
    drawn = {}
    writer = SimpleNamespace(add_figure=lambda tag, figure, step: drawn.setdefault(tag, figure))
    data = SimpleNamespace(spec=SimpleNamespace(labels=("a", "b")))
    trainer = SimpleNamespace(datamodule=data, logger=SimpleNamespace(writer=writer), global_step=3)
    module = SimpleNamespace(objective=SimpleNamespace(target=target))
    callback = Residuals()
    callback.on_test_start(trainer, module)
    for y in torch.linspace(0, 1, 6000).reshape(3000, 2).split(1000):
        callback.on_test_batch_end(trainer, module, y + 0.5, SimpleNamespace(y=y), 0)
    callback.on_test_end(trainer, module)
    assert list(drawn) == tags
    for figure in drawn.values():
        assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
        assert len(figure.axes[0].collections[0].get_offsets()) == 2000
    if tags:
        offsets = drawn["test residuals"].axes[1].collections[0].get_offsets()
        assert offsets[:, 1].tolist() == pytest.approx([0.5] * 2000)
