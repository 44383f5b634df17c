"""The plan of a sweep, written before its first job starts, and the states of its jobs."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.reading import file_sha256, is_plain
from warmstart.core.trust import check_names, check_targets
from warmstart.run.checksums import KEY, check_file, read_record, write_record
from warmstart.run.files import creating, writing
from warmstart.run.folder import LOCK, RECORD, RunFolder
from warmstart.run.identity import config_sha256
from warmstart.run.lock import Lock
from warmstart.run.scores import SCORES

MANIFEST, RUNS, LOCKS, CONF = "manifest.json", "runs", "locks", "conf"
HALVING = "selection"  # folder with the manifest of successive halving, below that of the run
# Files from which an interrupted run can resume.
CHECKPOINTS = tuple(f"checkpoints/{name}.ckpt" for name in ("last", "previous", "best"))
RESUMABLE = (*CHECKPOINTS, MANIFEST, f"{HALVING}/{MANIFEST}")
NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Job:
    """A planned run of a sweep.

    Args:
        values: of the settings that the sweep varies, by config key.
        config: the complete resolved config; its SHA-256 identifies the job.
        needs: name of the job that must be done first, if any.
    """

    name: str
    values: dict[str, Any]
    config: dict[str, Any]
    needs: str | None = None

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the config, equal to `config_sha256` in the run's record."""
        return config_sha256(self.config)


@dataclass
class Manifest:
    """The plan of a sweep and its folder: manifest.json, runs/<job>/ and locks/.

    Args:
        words: overrides of the command line.
        metric: the metric that ranks configurations; None if the stage has none.
        mode: max or min.
        git: commit of the code that wrote the plan.
        jobs: the planned jobs; empty for a search, whose trials create them.
        search: search space and settings; None for a grid.
        trust: packages whose code the configs may name; set on each command line, and not saved.
        checksums: SHA-256 of files of the folder, by relative path.
    """

    folder: Path
    stage: str
    experiment: str
    words: list[str]
    metric: str | None
    mode: str
    git: dict[str, Any]
    jobs: list[Job]
    search: dict[str, Any] | None = None
    trust: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)
    by_name: dict[str, Job] = field(init=False, repr=False)

    def __post_init__(self):
        self.by_name = {job.name: job for job in self.jobs}

    def write(self, conf: Sequence[Path] = ()) -> None:
        """Create the folder and write the plan.

        Args:
            conf: folders of yaml files to copy, for a search, whose trials compose their configs later.

        Raises:
            UserError: the folder exists or cannot be created.
            WriteError: the disk is full, read-only or broken; the folder is removed.
        """
        excluded = ("folder", "jobs", "trust", "by_name", "checksums")
        plan = {key: value for key, value in vars(self).items() if key not in excluded}
        jobs = [{**asdict(job), "sha256": job.sha256} for job in self.jobs]
        with creating(self.folder):
            runs = self.folder / RUNS
            runs.mkdir(parents=True, exist_ok=True)  # may exist, empty, if a process was killed here
            if (self.folder / MANIFEST).exists() or any(runs.iterdir()):
                raise FileExistsError
        try:
            with writing(self.folder):
                for folder in reversed(conf):
                    shutil.copytree(folder, self.folder / CONF, dirs_exist_ok=True)
                copies = sorted(path for path in (self.folder / CONF).rglob("*") if path.is_file())
            self.checksums = {path.relative_to(self.folder).as_posix(): file_sha256(path) for path in copies}
            write_record(self.folder / MANIFEST, {**plan, "jobs": jobs, KEY: self.checksums})
        except BaseException:
            for name in (RUNS, CONF):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: the folder of a transfer has a record
                self.folder.rmdir()
            raise

    def extend(self, jobs: Sequence[Job]) -> None:
        """Append jobs to the plan, for jobs that depend on the results of others."""
        plan = read_record(self.folder / MANIFEST)
        plan["jobs"] += [{**asdict(job), "sha256": job.sha256} for job in jobs]
        write_record(self.folder / MANIFEST, plan)
        self.jobs = [*self.jobs, *jobs]
        self.by_name |= {job.name: job for job in jobs}

    def record_checksums(self, checksums: dict[str, str]) -> None:
        """Store checksums in manifest.json; those of the copy of conf/ are kept."""
        plan = read_record(self.folder / MANIFEST)
        copies = {name: digest for name, digest in plan[KEY].items() if name.startswith(f"{CONF}/")}
        write_record(self.folder / MANIFEST, {**plan, KEY: {**copies, **checksums}})
        self.checksums = {**copies, **checksums}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and verify the plan of a sweep.

        Raises:
            UserError: the plan is missing or damaged, or the config of a job was changed.
        """
        path = folder / MANIFEST
        try:
            plan = read_record(path)
            checksums = {name: digest for name, digest in plan.pop(KEY).items() if name != MANIFEST}
            digests = [job.pop("sha256") for job in plan["jobs"]]
            manifest = cls(folder, **{**plan, "jobs": [Job(**job) for job in plan["jobs"]], "checksums": checksums})
            manifest._check_shape()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{folder} is not the folder of a sweep: it has no {MANIFEST}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
        for job, digest in zip(manifest.jobs, digests, strict=True):
            if job.sha256 != digest:
                raise UserError(f"{path}: the config of {job.name} was changed after it was planned; start a new sweep")
        return manifest

    def _check_shape(self) -> None:
        names = (self.stage, self.experiment, self.mode, *self.words, *([] if self.metric is None else [self.metric]))
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name is not a string")
        for record in (vars(self), *(job.config for job in self.jobs)):
            check_names(record)
        if len(self.by_name) < len(self.jobs):
            raise ValueError("two jobs have the same name")
        for name in self.checksums:
            if not all(is_plain(part) for part in name.split("/")):
                raise ValueError(f"{name} is not a file of the sweep")
        for job in self.jobs:
            if not re.fullmatch(NAME, job.name):
                raise ValueError(f"{job.name} is not a valid folder name")
            if job.needs is not None and job.needs not in self.by_name:
                raise ValueError(f"{job.name} needs {job.needs}, which is not a job")

    def check(self) -> None:
        """Check all jobs with `check_job`."""
        for job in self.jobs:
            check_job(job.config, self.folder / MANIFEST, self.trust)

    def path(self, name: str) -> Path:
        return self.folder / RUNS / name

    def lock(self, name: str) -> Lock:
        """Return the lock of a job's run folder, held while the job runs."""
        return Lock(self.path(name) / LOCK)

    def shared_lock(self, name: str) -> Lock:
        """Return a lock for operations that the processes of the sweep must not run at once."""
        return Lock(self.folder / LOCKS / name)

    def record(self, name: str) -> dict[str, Any] | None:
        """Read run.json of a job; None if it does not exist yet."""
        path = self.path(name)
        if not (path / "run.json").exists():
            return None
        try:
            return RunFolder.open(path).record
        except UserError as error:
            raise UserError(f"{error}; remove {path} to run the job again") from error

    def attempts(self, name: str) -> int:
        """Return the number of times that a job was started."""
        return ((self.record(name) or {}).get("sweep") or {}).get("attempts", 0)

    def state(self, name: str) -> str:
        """Return planned, running, done, failed, pruned or interrupted."""
        record = self.record(name)
        return "planned" if record is None else record["status"]

    def names(self) -> list[str]:
        """Return the names of all jobs: the planned ones, and those that the trials of a search have created."""
        created = {path.parent.name for path in (self.folder / RUNS).glob("*/run.json")}
        return [*self.by_name, *sorted(created - set(self.by_name))]


def check_job(config: dict[str, Any], path: Path, trust: tuple[str, ...]) -> None:
    """Check that the config of a job, read from `path`, names trusted code only and resumes no other run.

    Raises:
        UserError: the config is not allowed; the message names the setting or the code.
    """
    more = sorted(set(config.get("trust") or []) - set(trust))
    if more:
        raise UserError(f"{path} trusts code of {', '.join(more)}; if you trust it, add trust=[{','.join(more)}]")
    if config.get("resume"):
        raise UserError(f"{path} is damaged: a job resumes another run, {config['resume']}")
    check_targets(config, path, trust)


REPORT_FILES = ("metrics.csv", SCORES)  # files of a run that reports read, besides its record


def record_runs(manifest: Manifest, **others: str) -> None:
    """Store the checksums of the records of finished runs, which have those of the other files, and `others`."""
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    digests = {f"{RUNS}/{name}/{RECORD}": file_sha256(manifest.path(name) / RECORD) for name in done}
    manifest.record_checksums({**digests, **others})


def check_runs(manifest: Manifest, resumed: bool = False) -> None:
    """Verify the checksums of all finished runs.

    Args:
        resumed: drop the checksums of runs that are not finished, because they will be run again.

    Raises:
        UserError: a file was changed or removed; the message names it.
    """
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    if resumed:
        records = {f"{RUNS}/{name}/{RECORD}" for name in done}
        kept = {
            file: digest for file, digest in manifest.checksums.items() if file in records or not is_run_record(file)
        }
        if kept != manifest.checksums:
            manifest.record_checksums(kept)
    for file, digest in manifest.checksums.items():
        if is_run_record(file):
            check_file(manifest.folder / file, digest)
    for name in done:
        run = RunFolder.open(manifest.path(name))
        for file in REPORT_FILES:
            run.checked(file)


def is_run_record(file: str) -> bool:
    """Return whether a path relative to the folder of a sweep is the record of a run."""
    return file.startswith(f"{RUNS}/")
