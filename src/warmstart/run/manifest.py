"""What a sweep set out to run, frozen before its first job starts, and how far each job is."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError, WriteError
from warmstart.core.reading import file_sha256, is_plain
from warmstart.core.trust import check_names, check_targets
from warmstart.run.checksums import KEY, read_record, write_record
from warmstart.run.files import disk_error, writing
from warmstart.run.folder import LOCK, RunFolder
from warmstart.run.identity import config_sha256
from warmstart.run.lock import Lock

MANIFEST, RUNS, LOCKS, CONF = "manifest.json", "runs", "locks", "conf"
RACE = "race"  # below the folder of a run that chooses its strategy: the manifest of what it tried
# What an interrupted run can resume from.
CHECKPOINTS = tuple(f"checkpoints/{name}.ckpt" for name in ("last", "previous", "best"))
RESUMABLE = (*CHECKPOINTS, MANIFEST, f"{RACE}/{MANIFEST}")
NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Args:
        name: the name of its run folder.
        values: what it was given of what the sweep varies, by config key.
        config: the whole config, resolved; its SHA-256 is the job's identity.
        needs: the job that must be done before this one can start.
    """

    name: str
    values: dict[str, Any]
    config: dict[str, Any]
    needs: str | None = None

    @property
    def sha256(self) -> str:
        """The job's identity, which is also its run's `config_sha256`."""
        return config_sha256(self.config)


@dataclass
class Manifest:
    """A sweep's folder: manifest.json, runs/<job>/ for each job, locks/<job>.

    Args:
        folder: the sweep's folder.
        stage: the stage of its jobs.
        experiment: their experiment.
        words: the command line that made it.
        metric: the name of the metric that ranks configurations, or None where the stage has none.
        mode: whether more (max) or less (min) of it is better.
        git: commit of the code that made the plan.
        jobs: the plan; empty for a search, whose jobs are made as it goes.
        search: what the search may choose, and how; None for a grid.
        trust: packages whose code its configs may name; not written, since it is for the user to say each time.
        checksums: SHA-256 of files of the folder that must stay as they are, by path.
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
        """Make the folder and freeze the plan in it.

        Args:
            conf: folders of yaml files to keep a copy of, for a search, which composes its jobs as it goes.

        Raises:
            UserError: the folder exists already or cannot be made.
            WriteError: the disk is full, read-only or broken; nothing is left in the folder.
        """
        left_out = ("folder", "jobs", "trust", "by_name", "checksums")
        plan = {key: value for key, value in vars(self).items() if key not in left_out}
        jobs = [{**asdict(job), "sha256": job.sha256} for job in self.jobs]
        try:
            runs = self.folder / RUNS
            runs.mkdir(parents=True, exist_ok=True)  # an empty one is of a process that was killed here
            if (self.folder / MANIFEST).exists() or any(runs.iterdir()):
                raise FileExistsError
        except FileExistsError as error:
            raise UserError(f"{self.folder} is taken: remove it, or give another output_dir=") from error
        except OSError as error:
            if (reason := disk_error(error)) is not None:
                raise WriteError(self.folder, reason) from error
            raise UserError(f"cannot write {self.folder}: {error.strerror}; give a writable output_dir=") from error
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
            with contextlib.suppress(OSError):  # of a transfer, whose record lies in it
                self.folder.rmdir()
            raise

    def extend(self, jobs: Sequence[Job]) -> None:
        """Add jobs to the plan, those that could not be known before others were done; no job that is there changes."""
        plan = read_record(self.folder / MANIFEST)
        plan["jobs"] += [{**asdict(job), "sha256": job.sha256} for job in jobs]
        write_record(self.folder / MANIFEST, plan)
        self.jobs = [*self.jobs, *jobs]
        self.by_name |= {job.name: job for job in jobs}

    def record_checksums(self, checksums: dict[str, str]) -> None:
        """Keep the SHA-256 of files of the folder in manifest.json, beside those that it keeps of the copy of conf/."""
        plan = read_record(self.folder / MANIFEST)
        copies = {name: digest for name, digest in plan[KEY].items() if name.startswith(f"{CONF}/")}
        write_record(self.folder / MANIFEST, {**plan, KEY: {**copies, **checksums}})
        self.checksums = {**copies, **checksums}

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The plan of an existing sweep.

        Raises:
            UserError: it is missing, damaged, or a job is no longer what was planned.
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
            raise ValueError("a name is no text")
        for record in (vars(self), *(job.config for job in self.jobs)):
            check_names(record)
        if len(self.by_name) < len(self.jobs):
            raise ValueError("two jobs have one name")
        for name in self.checksums:
            if not all(is_plain(part) for part in name.split("/")):
                raise ValueError(f"{name} is no file of the sweep")
        for job in self.jobs:
            if not re.fullmatch(NAME, job.name):
                raise ValueError(f"{job.name} names no run folder")
            if job.needs is not None and job.needs not in self.by_name:
                raise ValueError(f"{job.name} needs {job.needs}, which is no job")

    def check(self) -> None:
        """Refuse a plan whose jobs name code of a package that is not trusted, trust others, or resume other runs."""
        for job in self.jobs:
            check_job(job.config, self.folder / MANIFEST, self.trust)

    def path(self, name: str) -> Path:
        """A job's run folder."""
        return self.folder / RUNS / name

    def lock(self, name: str) -> Lock:
        """That of a job's run folder, held by whoever runs the job."""
        return Lock(self.path(name) / LOCK)

    def shared_lock(self, name: str) -> Lock:
        """One for what several processes of the sweep do in turn."""
        return Lock(self.folder / LOCKS / name)

    def record(self, name: str) -> dict[str, Any] | None:
        """A job's run.json, or None before it has one."""
        path = self.path(name)
        if not (path / "run.json").exists():
            return None
        try:
            return RunFolder.open(path).record
        except UserError as error:
            raise UserError(f"{error}; remove {path}, and the job is run again") from error

    def attempts(self, name: str) -> int:
        """How often a job has been started."""
        return ((self.record(name) or {}).get("sweep") or {}).get("attempts", 0)

    def state(self, name: str) -> str:
        """planned, running, done, failed, pruned or interrupted."""
        record = self.record(name)
        return "planned" if record is None else record["status"]

    def names(self) -> list[str]:
        """All jobs: those planned, and those that a search made so far."""
        made = {path.parent.name for path in (self.folder / RUNS).glob("*/run.json")}
        return [*self.by_name, *sorted(made - set(self.by_name))]


def check_job(config: dict[str, Any], place: Path, trust: tuple[str, ...]) -> None:
    """Refuse the config of a job, read from `place`, that names code or settings which are for the user to say.

    Raises:
        UserError: names what it is.
    """
    more = sorted(set(config.get("trust") or []) - set(trust))
    if more:
        raise UserError(f"{place} trusts code of {', '.join(more)}; if that is yours, add trust=[{','.join(more)}]")
    if config.get("resume"):
        raise UserError(f"{place} holds a job that resumes another run, {config['resume']}, as no plan does")
    check_targets(config, place, trust)
