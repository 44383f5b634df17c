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

    def advance(self) -> None:
        """Run an epoch, or what is left of it: nothing where the checkpoint was written as training was to stop."""
        if self.epoch_loop.restarting and self.trainer.should_stop and self._can_stop_early:
            self.epoch_loop._batches_that_stepped += (
                not self._should_accumulate()
            )  # done after the checkpoint otherwise
        super().advance()
