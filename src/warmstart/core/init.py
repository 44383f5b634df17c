"""The values of `init=`: the source of the initial weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from warmstart.core.errors import UserError

HUB, SHUFFLED, RANDOM = "hf:", "shuffled:", "random:"


@dataclass(frozen=True)
class Init:
    """A source of initial weights.

    Args:
        kind: random weights, the latest pretraining run, a folder of weights, or a Hugging Face model.
        path: path of the folder, or name or path of the model.
        shuffled: whether the values of each tensor are permuted.
        random: whether only the architecture and the preprocessor are used.
    """

    kind: Literal["scratch", "latest", "folder", "hub"]
    path: str = ""
    shuffled: bool = False
    random: bool = False

    @classmethod
    def parse(cls, value: str) -> Init:
        """Parse the value of `init=`.

        Raises:
            UserError: `random:` is not followed by a Hugging Face model.
        """
        rest = value.removeprefix(SHUFFLED)
        path = rest.removeprefix(RANDOM)
        flags = {"shuffled": rest != value, "random": path != rest}
        if path.startswith(HUB):
            return cls("hub", path.removeprefix(HUB), **flags)
        if flags["random"]:
            raise UserError(f"init={value}: {RANDOM} goes before {HUB}NAME_OR_DIR")
        return cls(path, **flags) if path in ("scratch", "latest") else cls("folder", path, **flags)

    def __str__(self) -> str:
        flags = (SHUFFLED if self.shuffled else "") + (RANDOM if self.random else "")
        return flags + {"folder": self.path, "hub": HUB + self.path}.get(self.kind, self.kind)

    @property
    def source(self) -> Init:
        """The source of the weights, without the flags."""
        return replace(self, shuffled=False, random=False)

    @property
    def is_scratch(self) -> bool:
        """Whether the weights are random."""
        return self.kind == "scratch" or self.random

    @property
    def is_folder(self) -> bool:
        """Whether it is an existing folder."""
        return self.kind == "folder" and Path(self.path).is_dir()
