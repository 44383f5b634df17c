"""A static first layer as initial weights (`init=static:`): embeddings of tokens, or filters of a convolution."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from omegaconf import DictConfig, OmegaConf
from sklearn.decomposition import PCA
from torch import Tensor

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import PATCHES, STATIC, Init
from warmstart.core.protocols import Backbone
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import GenericDataModule
from warmstart.data.preprocess import rebuild
from warmstart.run.identity import derive_seed
from warmstart.run.saved import load_weights
from warmstart.training import components


def open_teacher(config: DictConfig) -> SavedModel | None:
    """Open the teacher of static embeddings of tokens; None without a teacher.

    Raises:
        UserError: there is no such model, or it takes other data.
    """
    teacher = Init.parse(config.init).teacher
    if teacher is None:
        return None
    from warmstart.huggingface.load import open_hub  # imports transformers

    try:
        saved = open_hub(teacher)
    except UserError as error:
        raise UserError(f"init={config.init}: {str(error).removeprefix(f'init={teacher}: ')}") from error
    modality = components.source_type(config.data).modality
    if saved.spec.modality != modality:
        raise UserError(
            f"init={config.init}: the teacher takes {saved.spec.modality} data, "
            f"but data={components.short_name(config.data)} is {modality}"
        )
    return saved


def parent_record(config: DictConfig, saved: SavedModel | None) -> dict[str, Any] | None:
    """Return the parent record of static embeddings of this teacher; None without a teacher."""
    if saved is None:
        return None
    teacher = Init.parse(config.init).teacher
    folder = Path(Init.parse(teacher).path).expanduser()
    word = Init("hub", str(folder.resolve())) if folder.is_dir() else teacher
    return {"id": None, "weights_sha256": saved.weights_sha256, "path": f"{STATIC}{word}"}


def set_first_layer(
    config: DictConfig, backbone: Backbone, data: GenericDataModule, teacher: SavedModel | None
) -> dict[str, Any]:
    """Set the embedding of each token with a vector, or the filters of the first convolution.

    Each is scaled to the norm of its random one.

    Returns:
        The number of tokens and the size of the vocabulary, or the number of filters, and the seconds.
    Raises:
        UserError: the generic data has too few different tokens or patches, or the teacher cannot be used.
    """
    started = time.monotonic()
    if Init.parse(config.init).path == PATCHES:
        found = {"filters": set_filters(config, backbone, data)}
    else:
        count = set_embeddings(config, backbone, data, teacher)
        found = {"tokens": count, "vocabulary": len(backbone.token_embedding.weight)}
    return {**found, "seconds": time.monotonic() - started}


def set_embeddings(config: DictConfig, backbone: Backbone, data: GenericDataModule, teacher: SavedModel | None) -> int:
    """Set the embedding of each token with a vector; return the number of these tokens."""
    weight = backbone.token_embedding.weight
    if teacher is None:
        seed = derive_seed(config.seed, "static")
        vectors = data.preprocessor.cooccurrence_vectors(data.raw, weight.shape[1], seed)
    else:
        vectors = principal_components(teacher_vectors(teacher, data), weight.shape[1])
    known = np.linalg.norm(vectors, axis=1) > 0
    with torch.no_grad():
        weight[known] = with_norms(vectors[known], weight[known])
    count = int(known.sum())
    screen.say(f"init={config.init}: vectors for {count:,} of {len(weight):,} tokens; the other weights are random")
    return count


def set_filters(config: DictConfig, backbone: Backbone, data: GenericDataModule) -> int:
    """Set the filters of the first convolution to whitened patches; return their number.

    Raises:
        UserError: the preprocessor has no patches, or too few.
    """
    preprocessor, weight = data.preprocessor, backbone.first_convolution.weight
    if "patches" not in preprocessor.abilities:
        raise UserError(
            f"init={config.init}: data={components.short_name(config.data)} has no patches: choose another init"
        )
    filters = preprocessor.patch_filters(data.raw, len(weight), weight.shape[-1], derive_seed(config.seed, "static"))
    with torch.no_grad():
        weight.copy_(with_norms(filters, weight))
    screen.say(f"init={config.init}: {len(weight)} filters of the first convolution; the other weights are random")
    return len(weight)


def with_norms(values: ArrayLike, like: Tensor) -> Tensor:
    """Return values (N, ...), each scaled to the norm of its row in `like` (N, ...)."""
    flat = torch.as_tensor(values).flatten(1)
    scaled = flat / flat.norm(dim=1, keepdim=True)
    return (scaled.to(like.dtype) * like.flatten(1).norm(dim=1, keepdim=True)).view(like.shape)


def teacher_vectors(saved: SavedModel, data: GenericDataModule) -> np.ndarray:
    """Return a vector per token of the preprocessor from the input embeddings of the teacher (V, D)."""
    teacher = components.build(OmegaConf.create(saved.card["backbone"]), spec=saved.spec)
    load_weights(teacher, saved.weights, saved.name)
    table = teacher.token_embedding.weight.detach().double().numpy()
    return data.preprocessor.translated(table, rebuild(saved.preprocessor))


def principal_components(vectors: np.ndarray, width: int) -> np.ndarray:
    """Return the principal components of vectors (N, D), with zeros beyond the last (N, width); vectors of 0 stay 0."""
    known = np.linalg.norm(vectors, axis=1) > 0
    count = min(width, int(known.sum()), vectors.shape[1])
    found = np.zeros((len(vectors), width))
    if count:
        found[known, :count] = PCA(count, svd_solver="covariance_eigh").fit_transform(vectors[known])
    return found
