"""Compare the throughput of image augmentation with a DataLoader that augments single images, as a ratio.

    python scripts/bench_images.py [TURNS]

Augmentations of contrastive learning: crop and resize, flip, blur, solarize, color jitter, grayscale, random erasing.
The baseline is common practice: Pillow per image in two workers, each transform as in torchvision (not installed) for
Pillow images, with saturation in place of our scale per channel. Run it on an idle machine.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Iterable
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from warmstart.core import screen
from warmstart.data.loader import GatherLoader
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.images import Blur, ColorJitter, Crop, Grayscale, RandomErasing, Solarize
from warmstart.training.memory import keep_freed_memory
from warmstart.training.trainer import native_precision

BATCH, BATCHES, SIDE, GOAL = 256, 20, 32, 20
MEAN, STD = 120.0, 60.0
SCALE, JITTER, GRAYSCALE, BLUR, SOLARIZE, AREA = 0.2, 0.4, 0.2, 0.5, 0.2, 0.3
TRANSFORMS = {
    "crop": Crop(SCALE, flip=True),
    "blur": Blur(BLUR),
    "solarize": Solarize(SOLARIZE),
    "color_jitter": ColorJitter(JITTER),
    "grayscale": Grayscale(GRAYSCALE),
    "random_erasing": RandomErasing(AREA),
}


class OneByOne(Dataset):
    """Pictures (N, H, W, 3), each changed by itself when it is asked for."""

    def __init__(self, pictures: np.ndarray):
        self.pictures = pictures
        self.mean, self.std = torch.full((3, 1, 1), MEAN / 255), torch.full((3, 1, 1), STD / 255)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        """Scaled pixels (3, H, W)."""
        image = self.crop(Image.fromarray(self.pictures[index]))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for enhancer in random.sample(enhancers, 3):
            image = enhancer(image).enhance(random.uniform(1 - JITTER, 1 + JITTER))
        if random.random() < GRAYSCALE:
            image = Image.merge("RGB", [image.convert("L")] * 3)
        if random.random() < BLUR:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
        if random.random() < SOLARIZE:
            image = ImageOps.solarize(image, 128)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return self.erase(x.sub_(self.mean).div_(self.std))

    def crop(self, image: Image.Image) -> Image.Image:
        """A random part of it, resized back."""
        for _ in range(10):
            area = SIDE * SIDE * random.uniform(SCALE, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if width <= SIDE and height <= SIDE:
                left, top = random.randint(0, SIDE - width), random.randint(0, SIDE - height)
                box = (left, top, left + width, top + height)
                return image.crop(box).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return image

    def erase(self, x: Tensor) -> Tensor:
        """A random rectangle becomes the mean."""
        area = SIDE * SIDE * random.uniform(0, AREA)
        ratio = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
        height = min(round(math.sqrt(area * ratio)), SIDE)
        width = min(round(math.sqrt(area / ratio)), SIDE)
        top, left = random.randint(0, SIDE - height), random.randint(0, SIDE - width)
        x[:, top : top + height, left : left + width] = 0
        return x


def rate(batches: Iterable) -> float:
    """Images a second, the first batches left out, by which workers fill their queues."""
    count, started = 0, time.perf_counter()
    for number, batch in enumerate(batches):
        if number == 4:
            count, started = 0, time.perf_counter()
        count += len(batch)
    return count / (time.perf_counter() - started)


def main(turns: int) -> None:
    """Take turns; the ratio is the median over them."""
    keep_freed_memory()  # build_trainer does this for the process, so both sides have it from the start
    pictures = np.random.default_rng(0).integers(0, 256, (BATCH * BATCHES, SIDE, SIDE, 3), dtype=np.uint8)
    stored = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    augment = Augment(Preprocessor(255.0, [3, SIDE, SIDE], [MEAN] * 3, [STD] * 3), TRANSFORMS)
    one_by_one = DataLoader(OneByOne(pictures), BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    complete = GatherLoader(stored, None, BATCH, seed=0)
    pairs = []
    for _ in range(turns + 1):
        theirs = rate(one_by_one)
        with torch.autocast("cpu", enabled=native_precision("cpu") is not None):  # as experiment=images has it
            pairs.append((rate(augment(batch.x) for batch in complete), theirs))
    ratio = median(ours / theirs for ours, theirs in pairs[1:])
    ours, theirs = (median(rates) for rates in zip(*pairs[1:]))
    screen.say(f"augmentation: {ours:,.0f} against {theirs:,.0f} images a second, {ratio:.1f} times (goal {GOAL})")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
