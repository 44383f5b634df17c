"""Several documents in one row: what each position of a model of transformers may see, and whether it heeds that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from warmstart.contracts import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def sight(documents: Tensor, config: PreTrainedConfig, causal: bool) -> Tensor | dict[str, Tensor]:
    """Who sees whom (B, 1, T, T), by kind of layer where there are several. Padding sees padding: no row is empty.

    Args:
        documents: (B, T), the number of each position's document.
        config: says how far layers with a window see, and how attention is computed.
        causal: whether positions see earlier ones only.

    Raises:
        UserError: there are layers that are not attention, or not to all positions or a window of them.
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    distance = place[:, None] - place
    seen = (documents[:, :, None] == documents[:, None, :])[:, None]
    if causal:
        seen = seen & (distance >= 0)
    window = getattr(config, "sliding_window", None)
    near = seen if window is None else seen & (distance < window if causal else distance.abs() <= window)
    views = {"full_attention": seen, "sliding_attention": near}
    if config._attn_implementation != "sdpa":
        lowest = torch.finfo(torch.float32).min
        views = {
            kind: torch.zeros(view.shape).to(view.device).masked_fill(~view, lowest) for kind, view in views.items()
        }
    kinds = set(getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"])
    if not kinds <= set(views):
        raise UserError(
            f"the layers of this {config.model_type} cannot keep packed texts apart: use data.separate=false"
        )
    return views if len(kinds) > 1 else views[kinds.pop()]


@torch.no_grad()
def keeps_apart(model: PreTrainedModel, causal: bool) -> bool:
    """Whether each of two documents is the same to the model when the other is changed."""
    device = next(model.parameters()).device
    documents = torch.tensor([[1, 1, 2, 2]], device=device)
    one, two = model.config.vocab_size - 1, model.config.vocab_size - 2
    found = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for row in ((one, two, one, two), (one, two, two, one), (two, one, one, two)):
            torch.manual_seed(0)  # the same dropout
            x = torch.tensor([row], device=device)
            try:
                found.append(model(input_ids=x, attention_mask=sight(documents, model.config, causal))[0][0])
            except (TypeError, ValueError, RuntimeError, IndexError):  # it takes no such mask
                return False
    first, second = (
        torch.isclose(found[0][:2], found[1][:2], atol=1e-5),
        torch.isclose(found[0][2:], found[2][2:], atol=1e-5),
    )
    return bool(first.all() and second.all())
