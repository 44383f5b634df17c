"""Variable-length rows: padded per batch, batched by similar length, or packed without padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from warmstart.data.loader import HELD_OUT_POSITIONS, GatherLoader, held_out_rows
from warmstart.data.storage.ragged import Packed, Ragged

pytestmark = pytest.mark.quick

LENGTHS = np.random.default_rng(0).integers(2, 40, 203)


def rows(lengths: np.ndarray = LENGTHS, context: int = 100, suffix: tuple[int, ...] = ()) -> Ragged:
    """Row r holds r + 1, as often as it is long."""
    values = np.repeat(np.arange(len(lengths)) + 1, lengths).astype(np.uint16)
    return Ragged(values, np.cumsum([0, *lengths]), lengths, 0, context, suffix)


def test_a_batch_is_as_wide_as_its_longest_row_and_the_rest_is_masked():
    x, mask = rows(np.array([3, 1, 2])).padded(slice(0, 3))
    assert x.tolist() == [[1, 1, 1], [2, 0, 0], [3, 3, 0]]
    assert torch.equal(mask, x > 0)
    assert rows(np.array([2, 2])).padded(slice(0, 2))[1] is None


def test_a_row_that_is_cut_off_still_ends_as_rows_end():
    x, mask = rows(np.array([3, 9]), context=4, suffix=(99,)).padded(slice(0, 2))
    assert x.tolist() == [[1, 1, 1, 0], [2, 2, 2, 99]]
    assert mask.sum().item() == 7


def test_batches_hold_rows_of_like_length_and_every_row_once_in_an_order_that_can_be_resumed():
    y = torch.arange(203)
    loader = GatherLoader(rows(), y, batch_size=8, seed=5)
    batches = list(loader)
    assert sorted(torch.cat([batch.y for batch in batches]).tolist()) == y.tolist()
    assert all(torch.equal(batch.x[:, 0], batch.y + 1) for batch in batches)
    padding = sum(0 if batch.mask is None else (~batch.mask).sum().item() for batch in batches)
    assert padding < 0.1 * LENGTHS.sum()
    widths = [batch.x.shape[1] for batch in batches]
    assert widths != sorted(widths)

    stopped, resumed = (GatherLoader(rows(), y, batch_size=8, seed=5) for _ in range(2))
    walk = iter(stopped)
    seen = [next(walk).y.tolist() for _ in range(4)]
    resumed.load_state_dict(stopped.state_dict())
    seen += [batch.y.tolist() for batch in resumed]
    assert seen == [batch.y.tolist() for batch in batches]
    assert [batch.y.tolist() for batch in loader] != seen


def test_blocks_hold_all_rows_end_to_end_and_are_cut_elsewhere_every_epoch():
    packed = Packed(rows(), 16)
    x, mask = packed.padded(slice(0, len(packed)))
    assert mask is None
    assert x.flatten().tolist() == rows().values[: len(packed) * 16].tolist()

    def epoch(loader: GatherLoader) -> list[list[int]]:
        return sorted(row for batch in loader for row in batch.x.tolist())

    loader, same = (GatherLoader(Packed(rows(), 16), None, 4, seed=1) for _ in range(2))
    first, second = epoch(loader), epoch(loader)
    assert [first, second] == [epoch(same), epoch(same)]
    assert first != second


def test_documents_in_a_block_are_distinguished():
    x, mask = Packed(rows(np.array([3, 2, 5])), 10, separate=True).padded(slice(0, 1))
    assert mask.tolist() == x.tolist() == [[1, 1, 1, 2, 2, 3, 3, 3, 3, 3]]


def test_less_text_than_a_block_is_one_shorter_block():
    assert Packed(rows(np.array([3, 2])), 16).padded(slice(0, 1))[0].shape == (1, 5)


def test_token_types_are_in_a_mask_of_bytes():
    values = np.arange(1, 8)
    rows = Ragged(values, np.array([0, 4, 7]), np.array([4, 3]), 0, 8, types=np.array([0, 0, 1, 1, 0, 0, 0], np.uint8))
    x, mask = rows.padded(slice(0, 2))
    assert x.tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [[1, 1, 2, 2], [1, 1, 1, 0]]


def test_held_out_batches_of_long_rows_with_targets_of_tokens_are_small():
    long = rows(np.array([10, HELD_OUT_POSITIONS // 4]), context=HELD_OUT_POSITIONS)
    assert held_out_rows(512, long, long) == 4
    assert held_out_rows(512, long, None) == held_out_rows(512, rows(), rows()) == 512
