"""Generates with the sequence-to-sequence model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig

from warmstart.core.batch import Prompt
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Preprocessor
from warmstart.core.saved_model import SavedModel
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.training.decoding import by_length, sampling_arguments
from warmstart.training.restore import restore_model
from warmstart.training.trainer import machine_trainer


class TextToText:
    """Generates a text for each input text, with the settings of the objective unless it samples.

    Args:
        backbone: a backbone with a decoder.
        objective: the objective of its finetuning (objective.seq2seq.Seq2Seq).
        preprocessor: with the ability `prompts`.
        length: maximum number of tokens to generate.
        temperature: divisor of the logits before sampling; 0 for greedy decoding, None for the search of the objective.
        top_k: number of most probable tokens to sample among; None for all.
        top_p: total probability of the most probable tokens to sample among; None for all.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Any,
        preprocessor: Preprocessor,
        length: int,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ):
        self.backbone, self.objective, self.preprocessor = backbone, objective, preprocessor
        objective.length = length
        if temperature is not None:
            objective.generation |= {"num_beams": 1, **sampling_arguments(temperature, top_k, top_p)}

    @classmethod
    def open(cls, run: RunFolder, config: DictConfig, trained: DictConfig) -> tuple[TextToText, SavedModel]:
        """Return a generator with the model of a run, on the device of its training, and the saved model.

        Args:
            config: settings of the generation.
            trained: config of the run.

        Raises:
            UserError: its inputs are no single texts.
        """
        backbone, objective, saved = restore_model(run, trained)
        preprocessor = rebuild(saved.preprocessor)
        if "prompts" not in preprocessor.abilities or len(preprocessor.columns) > 1:
            raise UserError(f"{run.path}: the inputs of this model are no single texts: use stage=predict input=FILE")
        device = machine_trainer(trained.trainer, run.path).strategy.root_device
        settings = (config.length, config.temperature, config.top_k, config.top_p)
        return cls(backbone.to(device), objective.to(device), preprocessor, *settings), saved

    @property
    def streams(self) -> bool:
        """Whether texts can be printed while they are generated: a beam search completes them at its end."""
        own = self.objective.generation.get("num_beams")
        return (own or getattr(self.backbone.generator().generation_config, "num_beams", None) or 1) == 1

    def starts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of input texts.

        Raises:
            UserError: a text is empty, or is longer than the context and `too_long` is error.
        """
        if any(not str(prompt.given).strip() for prompt in prompts):
            raise UserError("prompt: this model needs an input text: add prompt=TEXT or input=FILE")
        return self.preprocessor.input_tokens([str(prompt.given) for prompt in prompts])

    def generate(self, starts: Sequence[list[int]]) -> list[str]:
        """Return a text for each list of token ids, in batches of rows of similar length."""
        return by_length(starts, self.batch)

    @torch.no_grad()
    def batch(self, starts: Sequence[list[int]], streamer: Any = None) -> list[str]:
        """Return a text for each list of token ids, which are padded on the right.

        Args:
            streamer: streamer of transformers, for a single row.
        """
        width, device = max(map(len, starts)), next(self.backbone.parameters()).device
        padding = self.preprocessor.vocabulary.padding
        x = torch.tensor([[*start, *[padding] * (width - len(start))] for start in starts], device=device)
        mask = torch.tensor([[n < len(start) for n in range(width)] for start in starts], device=device)
        mask = None if mask.all() else mask
        features = self.backbone(x, mask).tokens
        return self.objective.target_texts(self.objective.generate(self.backbone, features, mask, streamer=streamer))
