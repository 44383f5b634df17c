"""Reading and writing `model/` folders: safetensors and JSON files, verified by checksums before they are used."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Preprocessor
from warmstart.core.reading import load_json
from warmstart.core.saved_model import SavedModel, spec_of, spec_record
from warmstart.core.spec import Spec
from warmstart.distributed.processes import rank
from warmstart.distributed.tensors import full
from warmstart.run.adapter import ADAPTER, Delta, applied, unpacked
from warmstart.run.checksums import check_folder, write_checksums
from warmstart.run.files import replacing_folder
from warmstart.run.folder import RunFolder
from warmstart.run.identity import check_version

WEIGHTS, HEAD, CARD, PREPROCESSOR = "model.safetensors", "head.safetensors", "config.json", "preprocessor.json"


def save_model(
    run: RunFolder,
    config: DictConfig,
    backbone: nn.Module,
    objective: nn.Module,
    spec: Spec,
    preprocessor: Preprocessor,
    plain: bool = False,
    snapshot: Path | None = None,
    adapter: dict[str, Tensor] | None = None,
) -> None:
    """Write `model/` atomically, and add the SHA-256 of its files to the run's record.

    Args:
        plain: also write pretrained_model.pth, the state_dict for `torch.load(weights_only=True)`.
        snapshot: a folder to write instead of `model/`, without a change of the record.
        adapter: adapter delta to write instead of the weights of the backbone.

    Of several processes, the first writes it.
    """
    state = _tensors(backbone) if adapter is None else {}  # gathered from all processes, if they are sharded
    head = _tensors(objective)
    if rank() > 0:
        return
    components = {name: OmegaConf.to_container(config[name], resolve=True) for name in ("backbone", "objective")}
    weights, lineage = WEIGHTS, {}
    target = (snapshot or run.path / "model").resolve()
    with replacing_folder(target) as folder:
        if adapter is None:
            save_file(state, folder / weights)
            if plain:
                torch.save(state, folder / "pretrained_model.pth")
        else:
            weights, parent = ADAPTER, {key: run.record["parent"][key] for key in ("path", "weights_sha256")}
            save_file(adapter, folder / weights, {"parent": parent["weights_sha256"]})
            is_hub = Init.parse(parent["path"]).kind == "hub"
            relative = {} if is_hub else {"relative": os.path.relpath(parent["path"], target)}
            lineage = {"parent": {**parent, **relative, "reinitialize": list(config.reinitialize)}}
        save_file(head, folder / HEAD)
        (folder / PREPROCESSOR).write_text(json.dumps(preprocessor.state()) + "\n")
        card = {
            "warmstart": run.record["environment"]["warmstart"],
            "run": run.record["id"],
            "stage": run.record["stage"],
            "experiment": run.record["experiment"],
            **components,
            **lineage,
            "spec": spec_record(spec),
        }
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
        digests = write_checksums(folder)
    if snapshot is None:
        hashes = {name: digests[name] for name in (weights, HEAD, PREPROCESSOR)}
        run.note(weights_sha256=hashes[weights], model_sha256=hashes)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: full(value.detach()).cpu().contiguous() for name, value in module.state_dict().items()}


def open_model(path: Path, run: RunFolder | None = None) -> SavedModel:
    """Read and verify a `model/` folder; merge the delta of an adapter with the weights of its parent.

    Args:
        run: its run, whose record must have the same checksums.

    Raises:
        UserError: a file of the model or its parent is missing, damaged, without checksum, or differs from the record.
    """
    card = _read_json(path / CARD)
    check_version(card.get("warmstart"), path)
    file = path / (ADAPTER if "parent" in card else WEIGHTS)
    digests = check_model(path, (file.name, HEAD, PREPROCESSOR, CARD), run)
    weights, head = _read_tensors(file), _read_tensors(path / HEAD)
    preprocessor = _read_json(path / PREPROCESSOR)
    try:
        spec = spec_of(card["spec"])
        card["backbone"]["_target_"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / CARD} is damaged: {error}") from error
    if file.name == ADAPTER:
        weights = merged_weights(path, card, weights)
    return SavedModel(path, card, spec, digests[file.name], weights, head, preprocessor)


def check_model(path: Path, names: Sequence[str], run: RunFolder | None = None) -> dict[str, str]:
    """Verify files in a `model/` folder against checksums.json and the run's record, and return their checksums.

    Raises:
        UserError: a file is missing, damaged, without checksum, or differs from the record.
    """
    digests = check_folder(path, names)
    if run is None:
        return digests
    recorded = run.record.get("model_sha256")
    for name in names:
        if name == CARD:  # not recorded: it differs between runs with equal models
            continue
        if not isinstance(recorded, dict) or name not in recorded:
            raise UserError(f"{run.path / 'run.json'} is damaged: it has no checksum of {path / name}")
        if digests[name] != recorded[name]:
            raise UserError(f"{path / name} is not the file that its run wrote: its SHA-256 is not the recorded one")
    return digests


def read_preprocessor(run: RunFolder) -> dict[str, Any]:
    """Read the state of a run's preprocessor, without its model.

    Raises:
        UserError: as `check_model`.
    """
    folder = run.path / "model"
    check_model(folder, (PREPROCESSOR,), run)
    return _read_json(folder / PREPROCESSOR)


def load_weights(
    module: nn.Module, weights: dict[str, Tensor], source: str, reinitialize: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Load every tensor by name; those that match a pattern in `reinitialize` keep their random initialization.

    An empty tensor of the module, which is fitted to data, takes the size of the saved one.

    Returns:
        The transfer record: number of loaded tensors, names that `reinitialize` matches, fraction of parameters loaded.

    Raises:
        UserError: a tensor is missing, unexpected or of another shape, and `reinitialize` does not match it.
    """
    state = module.state_dict()
    for pattern in reinitialize:
        if not any(fnmatchcase(name, pattern) for name in {*state, *weights}):
            raise UserError(
                f"reinitialize: {pattern} matches no tensor of the backbone; a valid name is {next(iter(state))}"
            )
    reinitialized = {name for name in state if any(fnmatchcase(name, pattern) for pattern in reinitialize)}
    missing = sorted(set(state) - set(weights) - reinitialized)
    unexpected = sorted(
        name for name in set(weights) - set(state) if not any(fnmatchcase(name, p) for p in reinitialize)
    )
    sized = {name for name in set(state) & set(weights) - reinitialized if state[name].numel()}
    mismatched = sorted(name for name in sized if state[name].shape != weights[name].shape)
    problems = [
        *(f"{name} is missing" for name in missing),
        *(f"{name} is not in the backbone" for name in unexpected),
        *(f"{n} has shape {tuple(weights[n].shape)}, not {tuple(state[n].shape)}" for n in mismatched),
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"the weights of {source} are incompatible with this backbone: {'; '.join(problems[:3])}{more}")
    loaded = {name: weights[name] for name in state if name in weights and name not in reinitialized}
    apart = {name: value for name, value in loaded.items() if value.data_ptr() != state[name].data_ptr()}
    module.load_state_dict(apart, strict=False)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    return {
        "loaded": len(loaded),
        "missing": sorted(reinitialized),
        "unexpected": [],
        "mismatched": [],
        "fraction": sum(size for name, size in sizes.items() if name in loaded) / max(1, sum(sizes.values())),
    }


def in_bfloat16(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with matrices, and tensors with more dimensions, in bfloat16."""
    return {
        name: value.to(torch.bfloat16) if value.is_floating_point() and value.ndim > 1 else value
        for name, value in weights.items()
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = load_json(path)
        if not isinstance(found, dict):
            raise ValueError("it is not a mapping")
        return found
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {path.parent} is not a saved backbone") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {path.parent} is not a saved backbone") from error
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error


MAX_ANCESTORS = 50  # of an adapter of an adapter; opening is recursive


def merged_weights(folder: Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model in a folder: those of its parent with the adapter delta `tensors`.

    Raises:
        UserError: the parent is missing, changed, or incompatible.
    """
    try:
        digest, reinitialize = (card["parent"][key] for key in ("weights_sha256", "reinitialize"))
        path = parent_path(folder, card)
        pooling, is_rounded = card["backbone"].get("pooling"), card["backbone"].get("dtype") == "bfloat16"
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / CARD} is damaged: {error}") from error
    check_ancestors(folder, path)
    try:
        parent = open_parent(path, pooling)
    except UserError as error:
        raise UserError(
            f"{folder} is an adapter of {path}, which cannot be opened: {error}; "
            "restore the parent there, or move both folders together"
        ) from error
    if parent.weights_sha256 != digest:
        raise UserError(
            f"{folder} is an adapter of {path}, whose weights have changed (SHA-256): restore the original weights"
        )
    try:
        return applied(tensors, in_bfloat16(parent.weights) if is_rounded else parent.weights, reinitialize)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder} is damaged: it is incompatible with {path}: {error}") from error


def open_adapter(run: RunFolder) -> tuple[str, dict[str, Delta]]:
    """Return the Hugging Face model of which a run is an adapter, with the prefix hf:, and its deltas by layer.

    Raises:
        UserError: the run is no adapter of a Hugging Face model, changed other weights too, or is damaged.
    """
    folder = run.path / "model"
    card = _read_json(folder / CARD)
    if "parent" not in card:
        raise UserError(f"{run.path} has no adapter, as strategy=lora trains one: use format=hf")
    check_model(folder, (ADAPTER, CARD), run)
    path = parent_path(folder, card)
    if Init.parse(path).kind != "hub":
        raise UserError(f"{run.path} is an adapter of {path}, which is no Hugging Face model: use format=hf")
    deltas, complete = unpacked(_read_tensors(folder / ADAPTER))
    if complete:
        raise UserError(f"{run.path} changed {next(iter(complete))} besides its adapters: use format=hf")
    return path, deltas


def parent_path(folder: Path, card: dict[str, Any]) -> str:
    """Return the path of an adapter's parent: the recorded path, or the relative one if both folders were moved."""
    path, relative = card["parent"]["path"], card["parent"].get("relative")
    if Init.parse(path).kind == "hub" or Path(path).is_dir() or not isinstance(relative, str):
        return path
    moved = folder / relative
    return str(moved.resolve()) if moved.is_dir() else path


def check_ancestors(folder: Path, path: Any) -> None:
    """Check the chain of parents for cycles and length, up to a model without a parent or with an unreadable card.

    Raises:
        UserError: a model is its own ancestor, or has too many ancestors.
    """
    seen = [folder.resolve()]
    while isinstance(path, str) and Init.parse(path).kind != "hub":
        found = Path(path).resolve()
        if found == seen[0]:
            role = "as its own parent" if len(seen) == 1 else f"as an ancestor of its parent {seen[1]}"
            raise UserError(f"{folder / CARD} names the model {role}")
        if found in seen or len(seen) > MAX_ANCESTORS:
            problem = "is its own ancestor" if found in seen else f"has more than {MAX_ANCESTORS} ancestors"
            raise UserError(f"{folder / CARD}: {found if found in seen else folder} {problem}: not opened")
        seen.append(found)
        try:
            path = parent_path(found, load_json(found / CARD))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return


def open_parent(path: str, pooling: str | None) -> SavedModel:
    """Open a saved backbone or a Hugging Face model.

    Raises:
        UserError: the model is missing or damaged.
    """
    if Init.parse(path).kind == "hub":
        from warmstart.huggingface.load import open_hub  # imports transformers

        return open_hub(path, pooling)
    return open_model(Path(path))
