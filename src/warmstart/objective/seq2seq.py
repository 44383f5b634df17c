"""Sequence to sequence: generate a target text from an input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective, Preprocessor
from warmstart.core.ranges import NonNegativeInt, PositiveInt
from warmstart.core.spec import Spec
from warmstart.data.preprocess.target_texts import Answers, ids_of
from warmstart.data.storage.ragged import PaddedRows
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.completion import TokenMean
from warmstart.objective.text_normalizers import Normalizer, normalizer_of
from warmstart.objective.text_scores import ERROR_COUNTS, ROW_SCORES, TextScores, normalized

NONE = -100  # label of padding, as in transformers
PADDING = -1  # after the ids of a generated text
VALUES = 2  # sum of the losses and number of tokens, before the ids of a generated text
Metric = Literal["loss", "exact_match", "answer_match", "rouge_l", "bleu", "chrf", "f1", "wer", "cer"]
LOWER_IS_BETTER = ("loss", "wer", "cer")


class Seq2Seq(Objective, nn.Module):
    """Cross-entropy of the tokens of the target, given the input and those before; metrics compare generated texts.

    Outputs are (B, 2 + L): for each row the sum of the losses, the number of tokens, and the ids of the generated text,
    padded with -1. With the metric `loss`, no text is generated in evaluation.

    Args:
        backbone: a backbone with a decoder.
        spec: spec of the data.
        loss: loss of logits and token ids.
        metric: metric that selects the best checkpoint and that reports compare.
        length: maximum number of tokens to generate.
        beams: width of the beam search; 1 for greedy decoding, None for the setting of the model.
        length_penalty: exponent of the length by which scores of beams are divided; None for the setting of the model.
        no_repeat: length of token sequences that occur at most once in a generated text; 0 for no limit, None for the
            setting of the model.
        normalizer: changes texts before word and character error rates are computed: none, or basic or english of
            Whisper.
    """

    target: ClassVar = "sequence"
    predicts: ClassVar = "category"
    needs: ClassVar = frozenset({"decode"})
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "seq2seq_lm"
    keeps_head: ClassVar = True
    abilities: ClassVar = frozenset({"texts", "examples"})
    head: ClassVar = None  # the output layer is that of the decoder
    prefix: tuple[int, ...] = ()  # token ids with which every target starts

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        metric: Metric = "exact_match",
        length: PositiveInt = 64,
        beams: PositiveInt | None = None,
        length_penalty: float | None = None,
        no_repeat: NonNegativeInt | None = None,
        normalizer: Normalizer = "none",
    ):
        super().__init__()
        self.normalize, self.scoring = normalizer_of(normalizer), {"normalizer": normalizer}
        self.loss, self.metric = loss, metric
        self.monitor, self.bounds = type(self).monitor(metric), (0.0, None if metric in LOWER_IS_BETTER else 1.0)
        self.length, self.positions = length, getattr(backbone, "decoder_positions", None)
        given = {"num_beams": beams, "length_penalty": length_penalty, "no_repeat_ngram_size": no_repeat}
        self.generation = {name: value for name, value in given.items() if value is not None}

    def read_texts(self, preprocessor: Preprocessor) -> None:
        """Use the tokenizer of a preprocessor, and the tokens with which it begins every target."""
        self.decode, self.prefix = preprocessor.decode, preprocessor.prefix

    @staticmethod
    def monitor(metric: Metric = "exact_match", **settings: Any) -> tuple[str, str]:
        """Return the monitored metric and its mode with these settings."""
        return f"val/{metric}", "min" if metric in LOWER_IS_BETTER else "max"

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens to generate: `length`, or less if the decoder has fewer positions."""
        return int(min(self.length, (self.positions or math.inf) - 1 - len(self.prefix)))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over tokens and, in evaluation, the outputs (B, 2 + L)."""
        features = backbone(batch.x, batch.mask).tokens
        labels = ids_of(batch.y)
        keep = labels != NONE
        logits = backbone.decode(features, batch.mask, shifted(backbone, labels))
        losses = self.loss(logits[keep], labels[keep]).float()
        loss = StepOutput(losses.mean(), losses.numel())
        if self.training and torch.is_grad_enabled():
            return loss
        row = keep.nonzero()[:, 0]
        values = losses.new_zeros(len(keep), VALUES).index_add(
            0, row, torch.stack([losses, torch.ones_like(losses)], 1)
        )
        ids = None if self.metric == "loss" else self.generate(backbone, features, batch.mask)
        loss.outputs = values if ids is None else torch.cat([values, ids.to(values.dtype)], 1)
        return loss

    @torch.no_grad()
    def generate(self, backbone: Backbone, features: Tensor, mask: Tensor | None, streamer: Any = None) -> Tensor:
        """Return the ids of a generated text for each row of features, padded with -1 (B, L).

        Args:
            streamer: streamer of transformers, for a single row.
        """
        from transformers.modeling_outputs import BaseModelOutput

        model = backbone.generator().eval()
        valid = (
            torch.ones(features.shape[:2], dtype=torch.long, device=features.device) if mask is None else mask.long()
        )
        valid = valid.clamp(max=1)
        first = torch.tensor([backbone.start, *self.prefix], device=features.device).expand(len(features), -1)
        found = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=features.to(model.dtype)),
            attention_mask=valid,
            decoder_input_ids=first,
            max_new_tokens=self.most_tokens,
            min_length=0,
            use_cache=True,
            num_return_sequences=1,
            return_dict_in_generate=False,
            streamer=streamer,
            **{"do_sample": False, **self.generation},
        )[:, first.shape[1] :]
        found = found.masked_fill(found == backbone.padding, PADDING)
        return F.pad(found, (0, self.length - found.shape[1]), value=PADDING)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the outputs (B, 2 + L), with a loss of 0 if there are no targets."""
        with torch.no_grad():
            values = None if batch.y is None else self.step(backbone, batch).outputs
            if values is not None and self.metric != "loss":
                return values
            ids = self.generate(backbone, backbone(batch.x, batch.mask).tokens, batch.mask)
            values = torch.zeros(len(ids), VALUES, device=ids.device) if values is None else values
            return torch.cat([values, ids.to(values.dtype)], 1)

    def metrics(self) -> dict[str, Any]:
        """Return the loss per token and, unless it is the metric, the scores of the generated texts."""
        texts = {"texts": TextScores(self.texts, self.target_texts, self.normalize, self.answers)}
        return {"loss": TokenMean(0), **({} if self.metric == "loss" else texts)}

    def scores(self, outputs: Tensor, y: Any) -> Tensor | None:
        """Return the metric of each row (B,); of loss and error rates numerator and denominator (B, 2); else None."""
        if self.metric == "loss":
            return outputs[:, :VALUES]
        pairs = zip(self.texts(outputs), self.target_texts(y))
        if count := ERROR_COUNTS.get(self.metric):
            found: list[Any] = [count(*normalized(self.normalize, *pair)) for pair in pairs]
        elif score := ROW_SCORES.get(self.metric):
            found = [score(*pair, answers) for pair, answers in zip(pairs, self.answers(y))]
        else:
            return None
        return torch.tensor(found, dtype=torch.float32)

    def texts(self, outputs: Tensor) -> list[str]:
        """Return the generated texts of outputs (B, 2 + L)."""
        return self.target_texts(outputs[:, VALUES:].long())

    def target_texts(self, y: Any) -> list[str]:
        """Return the texts of token ids (B, L), padded with negative numbers, or of the targets of rows."""
        return [self.decode([number for number in row if number >= 0]).strip() for row in ids_of(y).tolist()]

    def answers(self, y: Any) -> list[list[str]]:
        """Return the correct answers of each row: those of the data, else the target."""
        y = y[:] if isinstance(y, PaddedRows) else y
        return y.texts if isinstance(y, Answers) else [[text] for text in self.target_texts(y)]

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per row with its generated text."""
        return [{"text": text} for text in self.texts(outputs)]

    def export(self, folder: Path) -> None:
        """Write the settings of the generation beside the exported model."""
        path = folder / "generation_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        settings |= {"max_new_tokens": self.most_tokens, "max_length": None, "min_length": 0, **self.generation}
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def examples(self, backbone: Backbone, batch: Batch, decode: Callable[[Sequence[int]], str] | None) -> list[str]:
        """Return the target and the generated text of each row."""
        found = self.texts(self.predict(backbone, batch))
        return [f"{target} → **{text or '(nothing)'}**" for target, text in zip(self.target_texts(batch.y), found)]


def shifted(backbone: Backbone, labels: Tensor) -> Tensor:
    """Return the ids before each label (B, L): that which starts the decoder, then the labels but the last."""
    first = labels.new_full((len(labels), 1), backbone.start)
    ids = torch.cat([first, labels[:, :-1]], 1)
    return ids.masked_fill(ids == NONE, backbone.padding)
