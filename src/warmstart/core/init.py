"""What `init=` says: where the weights of a training come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from warmstart.core.errors import UserError

HUB, SHUFFLED, RANDOM = "hf:", "shuffled:", "random:"


@dataclass(frozen=True)
class Init:
    """A start point.

    Args:
        kind: random weights, the newest pretraining, a folder of weights, or a Hugging Face model.
        place: the path of the folder, or the name or path of the model.
        shuffled: whether the values of each tensor are permuted.
        random: whether only the architecture and the preprocessor are taken.
    """

    kind: Literal["scratch", "latest", "folder", "hub"]
    place: str = ""
    shuffled: bool = False
    random: bool = False

    @classmethod
    def parse(cls, word: str) -> Init:
        """Read what was typed.

        Raises:
            UserError: `random:` stands before something else than a Hugging Face model.
        """
        rest = word.removeprefix(SHUFFLED)
        place = rest.removeprefix(RANDOM)
        flags = {"shuffled": rest != word, "random": place != rest}
        if place.startswith(HUB):
            return cls("hub", place.removeprefix(HUB), **flags)
        if flags["random"]:
            raise UserError(f"init={word}: {RANDOM} goes before {HUB}NAME_OR_DIR")
        return cls(place, **flags) if place in ("scratch", "latest") else cls("folder", place, **flags)

    def __str__(self) -> str:
        flags = (SHUFFLED if self.shuffled else "") + (RANDOM if self.random else "")
        return flags + {"folder": self.place, "hub": HUB + self.place}.get(self.kind, self.kind)

    @property
    def source(self) -> Init:
        """What is opened: the same without the flags."""
        return replace(self, shuffled=False, random=False)

    @property
    def is_cold(self) -> bool:
        """Whether the weights are random."""
        return self.kind == "scratch" or self.random

    @property
    def is_found(self) -> bool:
        """Whether there is such a folder."""
        return self.kind == "folder" and Path(self.place).is_dir()
