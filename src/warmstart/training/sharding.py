"""Sharded data parallel training (FSDP2): every process stores a part of each parameter, gradient and momentum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from warmstart.core.errors import UserError
from warmstart.core.protocols import Objective, Strategy
from warmstart.distributed.processes import rank
from warmstart.distributed.tensors import full, sharded_as
from warmstart.training.components import build
from warmstart.training.modules import FinetuneModule

HOOKS = "_hooks"  # end of the names of a module's dictionaries of hooks


class ShardedDataParallel(DDPStrategy):
    """DDPStrategy with torch's fully_shard instead of replicas.

    The blocks of the backbone are gathered one at a time, and everything else, such as embeddings and the head, for the
    duration of a step. Gradients are averaged after every batch, also of an accumulated step, so that only shards of
    them are stored. Parameters may be frozen in some phases.

    Checkpoints are those of one process: the first process writes complete tensors, and any number of processes loads
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unsharded: list[tuple[nn.Module, type, dict[str, Any]]] = []  # modules with their classes and hooks

    def configure_ddp(self) -> None:
        """Shard the module, which has the same parameters in all processes."""
        module = self.lightning_module
        policy = policy_of(self.precision_plugin.precision)
        self.unsharded = [(part, type(part), hooks_of(part)) for part in module.modules()]
        for block in blocks_of(module.backbone):
            fully_shard(block, mp_policy=policy)
        fully_shard(module, mp_policy=policy, reshard_after_forward=True)

    def _step(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a step of the module between the hooks that gather and release its parameters."""
        module = self.lightning_module
        if not self.unsharded:
            return getattr(module, name)(*args, **kwargs)
        return self._forward_redirection(module, module, name, *args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch."""
        return self._step("training_step", *args, **kwargs)

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate a batch."""
        return self._step("validation_step", *args, **kwargs)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the complete state, which only the first process stores."""
        return kept(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the complete state of an optimizer, which only the first process stores."""
        state = super().optimizer_state(optimizer)
        return {**state, "state": {number: kept(values) for number, values in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this process's shard of the states of the optimizers."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"]):
            parameters = [value for group in optimizer.param_groups for value in group["params"]]
            shards = {
                number: {name: sharded_as(value, parameters[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shards})

    def unshard(self) -> None:
        """Restore the module to an ordinary one on the CPU, with complete parameters, after the training.

        Each process evaluates the complete module, and the first saves it.
        """
        complete: dict[int, nn.Parameter] = {}  # by the identity of the shard, for tied parameters
        for part, _, _ in self.unsharded:
            for name, value in part._parameters.items():
                if value is not None:
                    if id(value) not in complete:
                        complete[id(value)] = nn.Parameter(full(value.detach()).cpu(), value.requires_grad)
                    part._parameters[name] = complete[id(value)]
        for part, kind, hooks in self.unsharded:
            part.__class__ = kind
            vars(part).update(hooks)
        self.unsharded = []

    def teardown(self) -> None:
        """Keep a sharded module on its device, and end as DDPStrategy otherwise."""
        if not self.unsharded:
            super().teardown()
            return
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return complete values on the CPU; in other processes than the first, none are stored."""
    found = {}
    for name, value in values.items():
        whole = full(value)
        if rank() == 0:
            found[name] = whole.cpu() if isinstance(whole, Tensor) else whole
    return found


def hooks_of(module: nn.Module) -> dict[str, Any]:
    """Return copies of the dictionaries of hooks of a module."""
    return {
        name: value.copy() for name, value in vars(module).items() if name.endswith(HOOKS) and isinstance(value, dict)
    }


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """Return the blocks of a backbone, from input to output: the entries of `depths` that end in a number."""
    return [backbone.get_submodule(name) for name in backbone.depths() if name.rpartition(".")[2].isdigit()]


def policy_of(precision: str) -> MixedPrecisionPolicy:
    """Return the dtypes of gathered parameters and of averaged gradients for a precision of Lightning."""
    if precision == "bf16-mixed":
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return MixedPrecisionPolicy(reduce_dtype=torch.float32) if precision == "bf16-true" else MixedPrecisionPolicy()


def unshard(trainer: pl.Trainer) -> None:
    """Restore the module of a finished training if it was sharded."""
    if isinstance(trainer.strategy, ShardedDataParallel):
        trainer.strategy.unshard()


def is_sharded(module: nn.Module) -> bool:
    """Return whether the parameters of a module are sharded."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def shards(config: DictConfig) -> bool:
    """Return whether a training divides the parameters among its devices."""
    return config.trainer.get("sharding") is not None


def check_sharding(config: DictConfig, module: pl.LightningModule) -> None:
    """Raise an error if a part of a training requires complete parameters, but `trainer.sharding` divides them."""
    if not shards(config):
        return
    reason = "is not supported with trainer=fsdp, which divides the parameters among the devices"
    for name, remedy in refused(config, module):
        raise UserError(f"{name} {reason}: {remedy}, or choose trainer=default")
    for name, parameter in module.named_parameters():
        if parameter.ndim == 0:
            raise UserError(f"the parameter {name}, a single number, {reason}: choose trainer=default")


def refused(config: DictConfig, module: pl.LightningModule) -> Iterator[tuple[str, str]]:
    """Yield the parts of a training that require complete parameters, each with what to do."""
    if config.get("average") is not None and build(config.average) is not None:
        yield "an average of the weights", "set average=none"
    if type(module.objective).on_step_start is not Objective.on_step_start:
        yield f"the objective {type(module.objective).__name__}", "choose another objective="
    strategy = module.strategy if isinstance(module, FinetuneModule) else None
    if strategy is not None and type(strategy).step is not Strategy.step:
        yield f"the strategy {type(strategy).__name__}", "choose another strategy="
    if getattr(module.optimizer.func, "separates_hidden", False):
        yield f"the optimizer {module.optimizer.func.__name__}", "choose another optimizer="
    if str(config.trainer.precision) in ("16", "16-mixed"):
        yield f"trainer.precision={config.trainer.precision}", "choose bf16-mixed"
