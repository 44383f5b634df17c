"""Whisper of transformers: an encoder of log-mel features, and a decoder of texts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.spec import Spec
from warmstart.huggingface.configs.whisper import TASK
from warmstart.huggingface.heads import make_config, make_model
from warmstart.huggingface.tied import save_once
from warmstart.huggingface.trunk import checkpoint_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENCODER, DECODER = "model.model.encoder", "model.model.decoder"


class HuggingFaceWhisper(Backbone, nn.Module):
    """Whisper with its output layer; the features are those of the encoder.

    The positions of the encoder are constant, as in transformers. The random masking of the library is off, because it
    does not use the seed of the run.

    Args:
        spec: spec of recordings, with the vocabulary of the texts.
        architecture: content of config.json.
        generation: content of generation_config.json.
        checkpoint: whether to recompute the activations of each layer in the backward pass.

    Raises:
        UserError: it is no Whisper, or the vocabulary is larger than that of the model.
    """

    modalities: ClassVar = frozenset({"speech"})
    abilities: ClassVar = frozenset({"decode"})
    target_kind: ClassVar = "category"  # of the decoder

    def __init__(
        self,
        spec: Spec,
        architecture: dict[str, Any] | None,
        generation: dict[str, Any] | None = None,
        checkpoint: bool = False,
    ):
        from transformers import GenerationConfig

        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_whisper has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = make_config(architecture)
        if config.model_type != "whisper":
            raise UserError(f"backbone: a {config.model_type} is not a whisper")
        config.apply_spec_augment = config.use_cache = False
        self.architecture, self.width, self.target_size = architecture, config.d_model, config.vocab_size
        self.model = make_model("speech_seq2seq", config)
        if generation:
            self.model.generation_config = GenerationConfig.from_dict(dict(generation))
        if spec.vocabulary is not None and spec.vocabulary.size > self.target_size:
            raise UserError(
                f"the tokenizer has {spec.vocabulary.size:,} tokens, but the embedding of this whisper has "
                f"{self.target_size:,} rows: use the tokenizer of the model (init=hf:...)"
            )
        self.padding = config.pad_token_id if spec.vocabulary is None else spec.vocabulary.padding
        self.start = self.model.generation_config.decoder_start_token_id
        self.start = config.decoder_start_token_id if self.start is None else self.start
        self.decoder_positions = config.max_target_positions
        positions = self.model.get_encoder().embed_positions  # a buffer, which no strategy trains
        positions.register_buffer("weight", positions._parameters.pop("weight").detach())
        save_once(self)
        if checkpoint:
            checkpoint_layers(self.model)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map log-mel frames (B, T, mels) to features of the encoder (B, T / 2, D) and their mean (B, D)."""
        tokens = self.model.get_encoder()(input_features=x.transpose(1, 2)).last_hidden_state
        return Features(tokens, tokens.mean(1))

    def token_mask(self, mask: Tensor) -> Tensor:
        """Return which features are valid: all of them, since silence after a recording is part of it."""
        return torch.ones(len(mask), mask.shape[1] // 2, dtype=torch.bool, device=mask.device)

    def decode(self, features: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
        """Map features (B, T, D) and the token ids before each position (B, L) to logits (B, L, V)."""
        from transformers.modeling_outputs import BaseModelOutput

        encoded = BaseModelOutput(last_hidden_state=features)
        return self.model(encoder_outputs=encoded, decoder_input_ids=ids).logits

    def halves(self) -> dict[str, list[nn.Module]]:
        decoder = [self.model.get_decoder(), self.model.get_output_embeddings()]
        return {"encoder": [self.model.get_encoder()], "decoder": decoder}

    def generator(self) -> Generator:
        """Return the model, with the generation of a single segment."""
        return Generator(self.model)

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """Return a copy of the model, on the CPU and in evaluation mode.

        Raises:
            UserError: the model has a head for another task.
        """
        if task not in (None, TASK):
            raise UserError(
                f"export of a whisper for {task} on the features of its encoder is not supported: not exported"
            )
        model = copy.deepcopy(self.model).cpu().eval()
        model.config.use_cache = True
        return model.get_encoder() if task is None else model

    def depths(self) -> dict[str, int]:
        """Return depth 0 for what is before the layers, then a depth per layer of the encoder and of the decoder."""
        config = self.model.config
        first, second = config.encoder_layers, config.encoder_layers + config.decoder_layers
        layers = {f"{ENCODER}.layers.{n}": n + 1 for n in range(config.encoder_layers)}
        layers |= {f"{DECODER}.layers.{n}": first + n + 1 for n in range(config.decoder_layers)}
        before = {f"{ENCODER}.conv1": 0, f"{ENCODER}.conv2": 0}
        before |= {f"{DECODER}.embed_tokens": 0, f"{DECODER}.embed_positions": 0}
        after = {f"{ENCODER}.layer_norm": first + 1, f"{DECODER}.layer_norm": second + 1}
        if self.model.proj_out.weight is not self.model.get_input_embeddings().weight:
            after["model.proj_out"] = second + 1
        return {**before, **layers, **after}


class Generator:
    """Generation with a Whisper from the features of one segment, as `generate` of transformers without timestamps.

    That method of Whisper takes log-mel features only, and encodes them again. After <|notimestamps|>, no token of a
    time is generated.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.dtype = model, model.dtype

    def eval(self) -> Generator:
        """Set the evaluation mode."""
        self.model.eval()
        return self

    def generate(self, attention_mask: Tensor | None = None, max_new_tokens: int = 1, **settings: Any) -> Tensor:
        """Return ids with those of `decoder_input_ids` (B, L); at most as many as the decoder has positions."""
        from transformers import GenerationMixin

        given, known = settings.get("decoder_input_ids"), self.model.generation_config
        no_times = getattr(known, "no_timestamps_token_id", None)
        if no_times is not None and given is not None and (given == no_times).any():
            times = range(no_times + 1, self.model.config.vocab_size)
            settings["suppress_tokens"] = sorted({*(known.suppress_tokens or ()), *times})
        room = self.model.config.max_target_positions - (1 if given is None else given.shape[1])
        return GenerationMixin.generate(self.model, max_new_tokens=max(1, min(max_new_tokens, room)), **settings)
