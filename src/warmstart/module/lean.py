"""What both modules share: nothing but one shortcut past a cost of the loop."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class LeanModule(pl.LightningModule):
    """Lightning notes the running hook's name in `_current_fx_name` some 46 times a step.

    Through `nn.Module.__setattr__` that is a tenth of a short step's overhead; see docs/lab.md.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)
