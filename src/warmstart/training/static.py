"""Static embeddings as initial weights: a vector per token, from a teacher or from co-occurrence (`init=static:`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from sklearn.decomposition import PCA

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import STATIC, Init
from warmstart.core.protocols import Backbone
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import GenericDataModule
from warmstart.data.preprocess import rebuild
from warmstart.run.identity import derive_seed
from warmstart.run.saved import load_weights
from warmstart.training import components


def open_teacher(config: DictConfig) -> SavedModel | None:
    """Open the teacher of static embeddings; None without a teacher.

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


def set_embeddings(
    config: DictConfig, backbone: Backbone, data: GenericDataModule, teacher: SavedModel | None
) -> dict[str, Any]:
    """Set the embedding of each token with a vector, scaled to the norm of its random one.

    Returns:
        The number of these tokens, the size of the vocabulary, and the seconds.
    Raises:
        UserError: the texts have too few different tokens, or the teacher cannot be used.
    """
    started = time.monotonic()
    weight = backbone.token_embedding.weight
    seed = derive_seed(config.seed, "static")
    if teacher is None:
        vectors = data.preprocessor.cooccurrence_vectors(data.raw, weight.shape[1], seed)
    else:
        vectors = principal_components(teacher_vectors(teacher, data), weight.shape[1])
    norms = np.linalg.norm(vectors, axis=1)
    known = norms > 0
    with torch.no_grad():
        own = torch.from_numpy(vectors[known] / norms[known, None]).to(weight.dtype)
        rows = torch.from_numpy(np.flatnonzero(known))
        weight[rows] = own * weight[rows].norm(dim=1, keepdim=True)
    count = int(known.sum())
    screen.say(f"init={config.init}: vectors for {count:,} of {len(weight):,} tokens; the other weights are random")
    return {"tokens": count, "vocabulary": len(weight), "seconds": time.monotonic() - started}


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
