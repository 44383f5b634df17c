"""Random numbers of the rows of a part of a batch, as one process would draw them for the global batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from warmstart.core.batch import Part


class Draws(TorchFunctionMode):
    """Draws the random numbers of the global batch, and returns those of the rows of a part.

    The first dimension of random tensors must be that of the rows, or K times as large for K views of them. Tensors
    without dimensions are the same in all processes.

    Args:
        part: the rows of this process; None for numbers that are the same in all processes.
    """

    def __init__(self, part: Part):
        super().__init__()
        self.part: Part | None = part

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draw = None if self.part is None else DRAWS.get(func)
        return func(*args, **(kwargs or {})) if draw is None else draw(self, func, *args, **(kwargs or {}))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the tensor for the global batch.

        Raises:
            RuntimeError: the first dimension is not that of the rows.
        """
        rows = self.part.stop - self.part.start
        if shape[0] % rows:
            raise RuntimeError(f"random numbers of shape {tuple(shape)} in a step with {rows} rows: rows must be first")
        return (shape[0] // rows * self.part.total, *shape[1:])

    def drawn(self, draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
        """Return the own rows of `draw` of the shape for the global batch."""
        return self.part.of(draw(self.shape(shape))) if len(shape) else draw(())

    def sized(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Replace torch.rand and torch.randn."""
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        size = kwargs.pop("size", None)
        size = size if size is not None else args[0] if args and not isinstance(args[0], int) else args
        return self.drawn(lambda shape: func(shape, **kwargs), tuple(size))

    def integers(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Replace torch.randint."""
        if kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        size = kwargs.pop("size", None)
        limits, size = (args, size) if size is not None else (args[:-1], args[-1])
        return self.drawn(lambda shape: func(*limits, shape, **kwargs), tuple(size))

    def alike(self, func: Any, x: Tensor, **kwargs: Any) -> Tensor:
        """Replace torch.rand_like and torch.randn_like."""
        return self.drawn(lambda shape: func(x.new_empty(shape), **kwargs), x.shape)

    def in_place(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Replace Tensor.uniform_, normal_ and bernoulli_."""
        if kwargs.get("generator") is not None:
            return func(x, *args, **kwargs)
        return x.copy_(self.drawn(lambda shape: func(x.new_empty(shape), *args, **kwargs), x.shape))

    def dropout(self, func: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """Replace torch.nn.functional.dropout."""
        if not training or p == 0:
            return input
        kept = self.drawn(lambda shape: input.new_empty(shape).bernoulli_(1 - p), input.shape).div_(1 - p)
        return input.mul_(kept) if inplace else input * kept

    def attention(self, func: Any, *args: Any, dropout_p: float = 0.0, **kwargs: Any) -> Tensor:
        """Replace scaled_dot_product_attention with dropout, which draws internally."""
        if len(args) > 4:
            *args, dropout_p = args[:5]
        if dropout_p == 0:
            return func(*args, **kwargs)
        return attention(self, *args, dropout_p, **kwargs)


def attention(
    draws: Draws,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute attention with dropout, as torch's reference implementation of scaled_dot_product_attention does."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return draws.dropout(F.dropout, scores.softmax(-1), dropout_p) @ value


DRAWS: dict[Any, Callable[..., Tensor]] = {
    **dict.fromkeys((torch.rand, torch.randn), Draws.sized),
    torch.randint: Draws.integers,
    **dict.fromkeys((torch.rand_like, torch.randn_like), Draws.alike),
    **dict.fromkeys((Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_), Draws.in_place),
    F.dropout: Draws.dropout,
    F.scaled_dot_product_attention: Draws.attention,
}
