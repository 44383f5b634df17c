"""The processes of a training that torchrun or Slurm started, from environment variables; without torch."""

from __future__ import annotations

import os
import re

NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # as torchrun sets them
FIRST_PORT, PORTS = 20_000, 20_000


def is_launched() -> bool:
    """Return whether this process is one of several; `read_slurm` sets the variables of a step of Slurm."""
    return all(name in os.environ for name in NEEDED) and int(os.environ["WORLD_SIZE"]) > 1


def number() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def read_slurm() -> None:
    """Set the variables of torchrun for a task of a step (srun) with several tasks; torchrun's own have precedence."""
    given = os.environ
    if any(name in given for name in NEEDED) or int(given.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    per_node = re.match(r"\d+", given.get("SLURM_STEP_TASKS_PER_NODE", given["SLURM_STEP_NUM_TASKS"]))[0]
    job = int(given.get("SLURM_JOB_ID", 0)) + int(given.get("SLURM_STEP_ID", 0))
    values = {
        "RANK": given["SLURM_PROCID"],
        "LOCAL_RANK": given["SLURM_LOCALID"],
        "WORLD_SIZE": given["SLURM_STEP_NUM_TASKS"],
        "LOCAL_WORLD_SIZE": per_node,
        "MASTER_ADDR": first_host(given.get("SLURM_STEP_NODELIST", "localhost")),
        "MASTER_PORT": str(FIRST_PORT + job % PORTS),
    }
    os.environ.update(values)


def first_host(nodes: str) -> str:
    """Return the first host of a list of Slurm, such as node[08-11,15],other3."""
    name, bracket, numbers = re.match(r"([^\[,]+)(\[?)(\d*)", nodes).groups()
    return name + numbers if bracket else name
