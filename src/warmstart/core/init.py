"""The values of `init=`: the source of the initial weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from warmstart.core.errors import UserError

HUB, SHUFFLED, RANDOM, STATIC = "hf:", "shuffled:", "random:", "static:"
PMI, PATCHES = "pmi", "patches"  # static weights: embeddings from co-occurrence; filters from whitened patches


@dataclass(frozen=True)
class Init:
    """A source of initial weights.

    Args:
        kind: random weights, the latest pretraining run, a folder of weights, a Hugging Face model, or random weights
            with a static first layer: embeddings of tokens, or filters.
        path: path of the folder; name or path of the model; for a static first layer, pmi, hf:NAME_OR_DIR or patches.
        shuffled: whether the values of each tensor are permuted.
        random: whether only the architecture and the preprocessor are used.
    """

    kind: Literal["scratch", "latest", "folder", "hub", "static"]
    path: str = ""
    shuffled: bool = False
    random: bool = False

    @classmethod
    def parse(cls, value: str) -> Init:
        """Parse the value of `init=`.

        Raises:
            UserError: `random:` is not followed by a Hugging Face model, or `static:` is combined with a flag or not
                followed by a source of weights.
        """
        rest = value.removeprefix(SHUFFLED)
        path = rest.removeprefix(RANDOM)
        flags = {"shuffled": rest != value, "random": path != rest}
        if path.startswith(STATIC):
            source = path.removeprefix(STATIC)
            if any(flags.values()) or not (source in (PMI, PATCHES) or source.startswith(HUB)):
                raise UserError(f"init={value}: give {STATIC}{PMI}, {STATIC}{HUB}NAME_OR_DIR or {STATIC}{PATCHES}")
            return cls("static", source)
        if path.startswith(HUB):
            return cls("hub", path.removeprefix(HUB), **flags)
        if flags["random"]:
            raise UserError(f"init={value}: {RANDOM} goes before {HUB}NAME_OR_DIR")
        return cls(path, **flags) if path in ("scratch", "latest") else cls("folder", path, **flags)

    def __str__(self) -> str:
        flags = (SHUFFLED if self.shuffled else "") + (RANDOM if self.random else "")
        paths = {"folder": self.path, "hub": HUB + self.path, "static": STATIC + self.path}
        return flags + paths.get(self.kind, self.kind)

    @property
    def source(self) -> Init:
        """The source of the weights, without the flags."""
        return replace(self, shuffled=False, random=False)

    @property
    def is_scratch(self) -> bool:
        """Whether the weights are random."""
        return self.kind == "scratch" or self.random

    @property
    def is_pretrained_hub(self) -> bool:
        """Whether the weights are those of a Hugging Face model."""
        return self.kind == "hub" and not self.random and not self.shuffled

    @property
    def teacher(self) -> str | None:
        """The model of static embeddings; None if there is none."""
        return self.path if self.kind == "static" and self.path.startswith(HUB) else None

    @property
    def is_folder(self) -> bool:
        """Whether it is an existing folder."""
        return self.kind == "folder" and Path(self.path).is_dir()
