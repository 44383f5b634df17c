"""Augmentations: shapes, independence of examples, reproducibility, and selection by config."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Transform
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.images import Blur, Crop, Flip, Grayscale, RandomErasing, Shift, Solarize
from warmstart.data.transforms.mixing import Mixing
from warmstart.data.transforms.noise import Noise
from warmstart.main import CONF

pytestmark = pytest.mark.quick

as_is = Preprocessor()
NODES = {name: node for path in (CONF / "data/augment").glob("*.yaml") for name, node in OmegaConf.load(path).items()}
SHIPPED = {name: instantiate(node) for name, node in sorted(NODES.items()) if "_target_" in node}
SINGLE = {name: transform for name, transform in SHIPPED.items() if not isinstance(transform, Mixing)}
IMAGE = {name: transform for name, transform in SINGLE.items() if "image" in transform.inputs}


class Bytes(Preprocessor):
    white = 255.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() / 255


def check_draws(transform: Transform | Augment, x: torch.Tensor) -> None:
    """Assert that copies of one example are changed each in its own way, the same for the same seed, and x stays."""
    before = x.clone()
    torch.manual_seed(0)
    one = transform(x)
    torch.manual_seed(0)
    assert torch.equal(transform(x), one)
    assert one.shape == x.shape
    assert torch.equal(x, before)
    assert torch.isfinite(one).all()
    assert len(torch.unique(one.flatten(1), dim=0)) > 1


@pytest.mark.parametrize("name", SINGLE)
def test_changes_are_drawn_per_example_and_follow_the_seed(name: str):
    shape = (3, 16, 16) if "image" in SINGLE[name].inputs else (30, 2, 20)
    check_draws(SINGLE[name], (1 + torch.rand(1, *shape)).expand(64, *shape).contiguous())


def test_all_changes_of_images_together_are_drawn_per_example_and_follow_the_seed():
    check_draws(Augment(Bytes(), IMAGE), torch.randint(0, 255, (1, 3, 8, 8), dtype=torch.uint8).repeat(64, 1, 1, 1))


def test_nothing_asked_nothing_changed():
    x = torch.rand(4, 3, 8, 8)
    assert Augment(as_is)(x) is x


def test_transforms_act_in_their_order_raw_ones_before_the_scaling():
    x = torch.full((4, 1, 4, 4), 255, dtype=torch.uint8)
    log = []

    class Adding(Transform):
        def __init__(self, raw: bool, number: int):
            self.raw, self.number = raw, number

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            log.append((self.number, float(x.max())))
            return x

    Augment(Bytes(), {"a": Adding(False, 0), "b": Adding(True, 1), "c": Adding(False, 2), "d": Adding(True, 3)})(x)
    assert log == [(1, 255.0), (3, 255.0), (0, 1.0), (2, 1.0)]


@pytest.mark.parametrize("flip", [False, True])
def test_shifts_are_those_of_padding_and_cropping(flip: bool):
    x = torch.arange(1.0, 17).view(1, 1, 4, 4).expand(1000, -1, -1, -1)
    padded = torch.nn.functional.pad(x[0, 0], (1, 1, 1, 1))
    possible = {tuple(padded[i : i + 4, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}
    if flip:
        possible |= {tuple(torch.tensor(image).view(4, 4).flip(1).flatten().tolist()) for image in possible}
    assert {tuple(row.flatten().tolist()) for row in Shift(1, flip)(x)} == possible


@pytest.mark.parametrize("transform", [Flip(0.5), Crop(1.0, flip=True)])
def test_half_of_the_images_are_mirrored(transform: Transform):
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(1000, -1, -1, -1)
    one = transform(x)[:, 0, 0]
    assert 0.4 < (one[:, 0] > one[:, 3]).float().mean() < 0.6


def test_full_crop_is_the_image_itself_up_to_aspect():
    x = torch.rand(8, 1, 16, 16)
    torch.manual_seed(0)
    assert (Crop(0.999)(x) - x).abs().mean() < 0.2


def test_crops_come_in_the_size_that_is_asked_for():
    ramp = torch.arange(16.0).expand(4, 1, 16, 16)
    small = Crop(0.999, 8)(ramp)
    assert small.shape == (4, 1, 8, 8)
    assert (small.mean((0, 1, 2)) - torch.arange(0.5, 16, 2)).abs().max() < 1.5
    assert Blur(0.5)(small).shape == (4, 1, 8, 8)


def test_stored_bytes_are_moved_and_then_scaled():
    x = torch.randint(0, 255, (64, 3, 8, 8), dtype=torch.uint8)
    augment = Augment(Bytes(), {"shift": Shift(2)})
    assert Shift(2, flip=True)(x).dtype == Flip(0.5)(x).dtype == torch.uint8
    one = augment(x)
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(augment.scale(x), x.float() / 255)


def test_a_crop_is_what_bilinear_sampling_of_a_part_of_the_image_gives():
    """A ramp stays one: of least 0, most 1, and as steep as the part kept is small."""
    ramp = torch.linspace(0, 1, 16).expand(64, 3, 16, 16).contiguous()
    rows = Crop(0.2)(ramp)[:, 0]
    assert torch.allclose(rows, rows[:, :1].expand_as(rows), atol=1e-5)
    steps = rows[:, 0, 2:-2].diff(dim=1)
    assert torch.allclose(steps, steps.mean(1, keepdim=True).expand_as(steps), atol=1e-5)
    assert float(rows.min()) >= 0
    assert float(rows.max()) <= 1 + 1e-5
    assert float(steps.min()) > 0.3 / 16
    assert float(steps.max()) < 1.2 / 16


def test_grayscale_leaves_brightness_and_takes_color_from_as_many_images_as_asked():
    x = torch.rand(1000, 3, 2, 2)
    one = Grayscale(0.3)(x)
    luma = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand_as(x)
    changed = (one != x).flatten(1).any(1)
    assert torch.allclose(one[changed], luma[changed], atol=1e-5)
    assert 0.25 < changed.float().mean() < 0.35
    with pytest.raises(UserError, match="is for color"):
        Grayscale(0.3)(x[:, :1])


def test_blur_spreads_a_point_and_keeps_an_even_image():
    x = torch.zeros(200, 1, 9, 9)
    x[:, :, 4, 4] = 1
    blur = Blur(1.0)
    one = blur(x)
    assert torch.allclose(one, one.flip(2), atol=1e-5)
    assert torch.allclose(one, one.mT, atol=1e-5)
    assert (one[:, 0, 4, 4] >= one.flatten(1).amax(1) - 1e-6).all()
    assert float(one[:, 0, 4, 4].min()) < 0.1
    assert torch.allclose(blur(torch.ones(8, 3, 9, 7)), torch.ones(8, 3, 9, 7), atol=1e-5)


def test_solarize_inverts_the_brighter_half_between_black_and_white():
    scale = Preprocessor()
    scale.white = 16.0
    x = torch.arange(17.0).view(1, 1, 1, 17).expand(100, -1, -1, -1)
    one = Augment(scale, {"solarize": Solarize(0.5)})(x)
    drawn = one[:, 0, 0, 16] == 0
    assert 20 < int(drawn.sum()) < 80
    assert torch.equal(one[~drawn], x[~drawn])
    assert torch.equal(one[drawn], torch.minimum(x, 16 - x)[drawn])


def test_erasing_sets_one_rectangle_of_at_most_its_share_to_the_mean():
    one = RandomErasing(0.25)(torch.ones(300, 3, 20, 20))
    gone = one == 0
    assert torch.equal(gone, gone[:, :1].expand_as(gone))
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None, :])
    shares = gone[:, 0].float().mean((1, 2))
    assert 0.2 < float(shares.max()) < 0.3
    assert float(shares.min()) < 0.05


def test_images_beyond_the_cache_are_each_changed_too():
    x = torch.rand(1, 3, 64, 64).expand(100, -1, -1, -1).contiguous()
    one = Augment(as_is, {"crop": Crop(0.5)})(x)
    assert one.shape == x.shape
    assert len(torch.unique(one.flatten(1), dim=0)) == 100


def test_noise_is_for_vectors_too():
    assert 0.4 < Noise(0.5)(torch.zeros(300, 4)).std() < 0.6
