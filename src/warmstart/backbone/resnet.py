"""Residual networks (He et al. 2016) with a 3x3 stem, for images of the size of CIFAR."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.ranges import PositiveInt, Widths
from warmstart.core.spec import Spec


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual connection."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(Backbone, nn.Module):
    """A 3x3 stem, then one stage of `blocks[i]` blocks per entry of `widths`; later stages halve the resolution."""

    modalities: ClassVar = frozenset({"image"})

    def __init__(self, spec: Spec, widths: Widths, blocks: list[PositiveInt]):
        super().__init__()
        if len(widths) != len(blocks):
            raise UserError(f"backbone.widths={widths} and blocks={blocks}: give as many of both")
        self.stem = nn.Sequential(
            nn.Conv2d(spec.shape[0], widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages = []
        inputs = widths[0]
        for index, (outputs, count) in enumerate(zip(widths, blocks)):
            stride = 1 if index == 0 else 2
            first = BasicBlock(inputs, outputs, stride)
            stages.append(nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(count - 1))))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.width = inputs
        self.to(memory_format=torch.channels_last)  # 1.3 to 1.5 times faster on the CPU, and on GPUs in half precision

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map (B, C, H, W) to the positions of the last feature map (B, T, D) and their mean (B, D)."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            x = stage(x)
        tokens = x.flatten(2).transpose(1, 2)
        return Features(tokens, tokens.mean(1))

    def depths(self) -> dict[str, int]:
        """Return depth 0 for the stem, then one depth per stage."""
        return {"stem": 0, **{f"stages.{index}": index + 1 for index in range(len(self.stages))}}
