"""The folder of a run, with an atomically written record and a lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.core.errors import Interrupted, Pruned, Unmet, UserError, WriteError, interrupt_of
from warmstart.core.reading import file_sha256, load_config
from warmstart.core.trust import check_names, check_targets
from warmstart.run import cores
from warmstart.run.checksums import check_file, read_record, write_record
from warmstart.run.files import as_write_error, check_links, creating, remove_temporaries, write_atomically
from warmstart.run.identity import check_version, config_sha256, environment, git_state, new_id, resolved
from warmstart.run.lock import Lock
from warmstart.run.log import logging_to

RECORD, CONFIG, CLUSTERS, LOG, LOCK = "run.json", "config.yaml", "test_clusters.npy", "train.log", "lock"
FIXED = (CONFIG, CLUSTERS)  # files that are not written again when a run is resumed
LOCK_TIMEOUT = 1.0  # seconds; reports may hold the lock for a moment


class RunFolder:
    """A run on disk: run.json, config.yaml, train.log, checkpoints/ and model/, and the lock of its process.

    Args:
        lock: of the folder, if this process already holds it.
    """

    def __init__(self, path: Path, record: dict[str, Any], lock: Lock | None = None):
        self.path = path
        self.record = record
        self.lock = lock or Lock(path / LOCK)
        self.is_recording = False

    @classmethod
    def create(
        cls, config: DictConfig, parent: Path, name: str | None = None, lock: Lock | None = None, **fields: Any
    ) -> RunFolder:
        """Create a new folder under `parent`, locked until its `recording` ends.

        Args:
            name: of the folder; None for the id of the run.
            lock: of the folder, if the caller has created it, empty, and holds its lock.
            fields: additional fields of the record.

        Raises:
            UserError: the folder exists or cannot be created.
            WriteError: the disk is full or broken.
            Interrupted: a signal came after the record was written; before that, the folder is removed.
        """
        run_id = new_id()
        path = parent / (name or run_id)
        record = {
            "id": run_id,
            "stage": config.stage,
            "experiment": config.experiment,
            "status": "running",
            "seed": config.get("seed"),
            "config_sha256": config_sha256(resolved(config)),
            "parent": None,
            "git": git_state(),
            "environment": environment(),
            "threads": cores.in_use(),
            "data": None,
            "metrics": {},
            "transfer": None,
            "cost": None,
            "error": None,
            **fields,
        }
        run = cls(path, record, lock)
        with creating(path):
            path.mkdir(parents=True, exist_ok=lock is not None)
        try:
            run.hold()
            run.write_config(config)
        except BaseException as error:
            if lock is None:
                run._abandon(error)
            raise
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read an existing run folder; a running run whose lock no process holds is interrupted.

        Raises:
            UserError: run.json is missing or damaged.
        """
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        try:
            record = read_record(path / RECORD)
            run = cls(path, {"id": record["id"], "stage": record["stage"], "status": record["status"], **record})
            wrong = [name for name in ("metrics", "cost", "sweep") if not isinstance(record.get(name) or {}, dict)]
            if wrong:
                raise ValueError(f"{wrong[0]} is not a mapping")
            check_version((record.get("environment") or {}).get("warmstart"), path)
            check_names(record)
        except FileNotFoundError as error:
            raise UserError(f"{path} is not a run folder: it has no {RECORD}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path / RECORD} is damaged: {error}") from error
        except OSError as error:
            raise UserError(f"{path / RECORD} cannot be read: {error.strerror}") from error
        if record["status"] == "running" and not run.lock.is_held():
            run.record |= {"status": "interrupted", "error": "its process has ended"}
        return run

    def hold(self) -> None:
        """Lock the folder, and remove temporary files of killed processes.

        Raises:
            UserError: another process runs it, or it contains symbolic links.
            WriteError: the disk is full, read-only or broken.
        """
        if self.lock.is_acquired:
            return
        check_links(self.path)
        if not self.lock.acquire(LOCK_TIMEOUT):
            raise UserError(f"{self.path}: {self.lock.owner()} is running it; wait until it has ended")
        self.lock.start_heartbeat()
        remove_temporaries(self.path)
        if (self.path / RECORD).exists():  # the previous holder may have changed it
            self.record = RunFolder.open(self.path).record

    def write_config(self, config: DictConfig) -> None:
        """Write config.yaml, and its checksum into the record."""
        content = OmegaConf.to_yaml(OmegaConf.create(resolved(config)))
        write_atomically(self.path / CONFIG, content)
        self.update(checksums={CONFIG: hashlib.sha256(content.encode()).hexdigest()})

    def note(self, **fields: Any) -> None:
        """Set fields of the record without writing it.

        Raises:
            ValueError: a number is not finite.
        """
        record = {**self.record, **fields}
        json.dumps(record, allow_nan=False)
        self.record = record

    def update(self, **fields: Any) -> None:
        """Set fields of the record and write run.json; on an error, the record is unchanged.

        Raises:
            ValueError: a number is not finite.
            WriteError: the disk is full, read-only or broken.
        """
        before = self.record
        self.note(**fields)
        try:
            write_record(self.path / RECORD, self.record)
        except WriteError:
            self.record = before
            raise

    def checked(self, name: str) -> Path:
        """Verify a file of the run against the record, if the run is done, and return its path.

        Raises:
            UserError: the file is damaged or missing.
        """
        digest = (self.record.get("checksums") or {}).get(name)
        if digest is not None:
            check_file(self.path / name, digest)
        elif self.record["status"] == "done" and (self.path / name).exists():
            raise UserError(f"{self.path / RECORD} is damaged: it has no checksum of {name}")
        return self.path / name

    def config(self, trust: tuple[str, ...] = ()) -> DictConfig:
        """Read and verify the resolved config of the run.

        Raises:
            UserError: the file is missing or damaged, or names code that is neither a component nor trusted.
        """
        path = self.path / CONFIG
        if CONFIG not in (self.record.get("checksums") or {}):
            raise UserError(f"{self.path / RECORD} is damaged: it has no checksum of {CONFIG}")
        self.checked(CONFIG)
        try:
            config = load_config(path)
        except Exception as error:
            raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        if not isinstance(config, DictConfig) or "stage" not in config:
            raise UserError(f"{path} is damaged: it is not the config of a run")
        plain = OmegaConf.to_container(config)
        try:
            check_names(plain)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from error
        check_targets(plain, path, trust)
        given = {"trust": list(trust), "resume": None}  # set on each command line
        return OmegaConf.create({key: given.get(key, value) for key, value in plain.items()}, flags={"struct": True})

    @contextlib.contextmanager
    def recording(self) -> Iterator[RunFolder]:
        """Lock the run, log to train.log, and update the status when the block ends.

        The status is done, failed, pruned or interrupted; errors are logged with traceback, and the lock is released. A
        nested `recording` of the same run does nothing.

        Raises:
            Interrupted: a signal came.
            UserError: another process runs it.
        """
        if self.is_recording:
            yield self
            return
        self.is_recording = True
        try:
            self.hold()
            with logging_to(self.path / LOG):
                try:
                    known = self.record.get("checksums") or {}
                    fixed = {name: known[name] for name in FIXED if name in known}
                    self.update(status="running", error=None, checksums=fixed)
                    unmet = None
                    try:
                        yield self
                    except Unmet as result:  # the run is complete
                        unmet = result
                    self.note(checksums=self._checksums())
                    self.update(status="done")
                    if unmet is not None:
                        raise unmet
                except BaseException as error:
                    failure = as_write_error(error, self.path)
                    self._close(failure or error)
                    if failure is not None:
                        failure.run = self.path
                        raise failure from failure.__cause__
                    raise
        except BaseException as error:
            if is_interrupt(error):
                raise self._interrupted() from error
            raise
        finally:
            self.is_recording = False
            self.lock.release()

    def _abandon(self, error: BaseException) -> None:
        """Record the error of a run that could not be created; remove its folder if it has no record."""
        if has_record := (self.path / RECORD).exists():
            self._close(error)
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self.lock.release()
        if has_record and is_interrupt(error):
            raise self._interrupted() from error

    def _interrupted(self) -> Interrupted:
        return Interrupted(None if self.record["status"] == "done" else self.path)

    def _close(self, error: BaseException) -> None:
        """Record how the run ended; on a full disk, use the space that the lock reserved."""
        if self.record["status"] == "done":  # a signal came while this status was written
            end = {"status": "done"}
        elif is_interrupt(error):
            end = {"status": "interrupted", "error": "interrupted by the user"}
        elif isinstance(error, Pruned):
            end = {"status": "pruned", "error": str(error)}
        else:
            logging.getLogger().error(traceback.format_exc())
            end = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        try:
            self.update(**end)
        except WriteError:
            self.lock.release_reserve()
            with contextlib.suppress(WriteError):  # a record that stays "running" is read as interrupted
                self.update(**end)

    def _checksums(self) -> dict[str, str]:
        """Return the SHA-256 of the files that a finished run no longer changes; folders have their own checksums."""
        names = {path.name for path in self.path.iterdir() if path.is_file()} - {RECORD, LOG, LOCK}
        return {name: file_sha256(self.path / name) for name in sorted(names) if not name.startswith("events.out.")}


def is_interrupt(error: BaseException) -> bool:
    """Return whether a signal, or a cluster launcher by SystemExit, requested stopping."""
    return isinstance(error, SystemExit) or interrupt_of(error) is not None
