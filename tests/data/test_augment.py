"""Augmentation: right shapes, per example, reproducible, and only what was asked for."""

from __future__ import annotations

import pytest
import torch

from warmstart.contracts import UserError
from warmstart.data.augment import Augment


def as_is(x: torch.Tensor) -> torch.Tensor:
    return x


SETTINGS = [
    {"shift": 2},
    {"flip": True},
    {"shift": 2, "flip": True},
    {"crop": 0.3},
    {"crop": 0.3, "flip": True},
    {"colour": 0.4},
    {"noise": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_changes_are_drawn_per_example_and_follow_the_seed(settings: dict):
    x = torch.rand(1, 3, 8, 8).expand(64, -1, -1, -1).contiguous()
    before = x.clone()
    augment = Augment(as_is, "image", **settings)
    torch.manual_seed(0)
    one = augment(x)
    torch.manual_seed(0)
    assert torch.equal(augment(x), one)
    assert one.shape == x.shape
    assert torch.equal(x, before)
    assert torch.isfinite(one).all()
    assert len(torch.unique(one.flatten(1), dim=0)) > 1


def test_nothing_asked_nothing_changed():
    x = torch.rand(4, 3, 8, 8)
    assert Augment(as_is, "image")(x) is x


def test_shifts_are_those_of_padding_and_cropping():
    x = torch.arange(1.0, 17).view(1, 1, 4, 4).expand(500, -1, -1, -1)
    padded = torch.nn.functional.pad(x[0, 0], (1, 1, 1, 1))
    possible = {tuple(padded[i : i + 4, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}
    drawn = {tuple(row.flatten().tolist()) for row in Augment(as_is, "image", shift=1)(x)}
    assert drawn == possible


def test_half_of_the_images_are_mirrored():
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(1000, -1, -1, -1)
    mirrored = (Augment(as_is, "image", flip=True)(x)[:, 0, 0, 0] == 3).float().mean()
    assert 0.4 < mirrored < 0.6


def test_full_crop_is_the_image_itself_up_to_aspect():
    x = torch.rand(8, 1, 16, 16)
    torch.manual_seed(0)
    assert (Augment(as_is, "image", crop=0.999)(x) - x).abs().mean() < 0.2


def test_pictures_only_for_pictures():
    with pytest.raises(UserError, match="are for images"):
        Augment(as_is, "vector", flip=True)
    assert Augment(as_is, "vector", noise=0.5)(torch.zeros(3, 4)).shape == (3, 4)


def test_stored_bytes_are_moved_and_then_scaled():
    x = torch.randint(0, 255, (64, 3, 8, 8), dtype=torch.uint8)
    augment = Augment(lambda raw: raw.float() / 255, "image", shift=2, flip=True)
    one = augment(x)
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(augment.scale(x), x.float() / 255)
