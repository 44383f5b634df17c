"""Lightning's loop over epochs, for a run that resumes from a checkpoint at its last step."""

from __future__ import annotations

from pytorch_lightning.loops.fit_loop import _FitLoop


class FitLoop(_FitLoop):
    """Also completes an epoch in which training has reached its limit: its loss is logged, and training ends."""

    @property
    def done(self) -> bool:
        """Return whether a limit is reached and no epoch is incomplete."""
        epochs = self.epoch_progress.total
        return super().done and epochs.processed == epochs.started
