"""A run's folder: made exclusively, its record rewritten atomically, its status always true."""

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

from warmstart.core.errors import Interrupted, Pruned, Unmet, UserError, WriteError
from warmstart.core.reading import file_sha256, load_config
from warmstart.core.trust import check_names, check_targets
from warmstart.run import cores
from warmstart.run.checksums import check_file, read_record, write_record
from warmstart.run.files import as_write_error, check_links, disk_error, remove_temporaries, write_atomically
from warmstart.run.identity import check_version, config_sha256, environment, git_state, new_id
from warmstart.run.lock import Lock
from warmstart.run.log import logging_to

RECORD, CONFIG, LOG, LOCK = "run.json", "config.yaml", "train.log", "lock"
PATIENCE = 1.0  # seconds for a report that looks at the lock this very moment


class RunFolder:
    """One run on disk: run.json, config.yaml, train.log, checkpoints/ and model/, and a lock held by who works on it.

    Args:
        path: of the folder.
        record: what run.json holds.
        lock: held already by this process, or one to take.
    """

    def __init__(self, path: Path, record: dict[str, Any], lock: Lock | None = None):
        self.path = path
        self.record = record
        self.lock = lock or Lock(path / LOCK)
        self.is_recording = False

    @classmethod
    def create(
        cls,
        config: DictConfig,
        parent: Path,
        name: str | None = None,
        lock: Lock | None = None,
        **fields: Any,
    ) -> RunFolder:
        """Make a new folder under `parent`, locked until its `recording` ends; its name is the run's id, or `name`.

        Args:
            config: the run's.
            parent: where to make it.
            name: of the folder.
            lock: the folder's own, where the caller has made the folder, empty, to hold it.
            fields: further ones of the record.

        Raises:
            UserError: the folder exists already or cannot be made.
            WriteError: the disk is full or broken.
            Interrupted: a signal came once there was a record; before, the folder is removed.
        """
        run_id = new_id()
        path = parent / (name or run_id)
        record = {
            "id": run_id,
            "stage": config.stage,
            "experiment": config.experiment,
            "status": "running",
            "seed": config.get("seed"),
            "config_sha256": config_sha256(OmegaConf.to_container(config, resolve=True)),
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
        try:
            path.mkdir(parents=True, exist_ok=lock is not None)
        except FileExistsError as error:
            raise UserError(f"{path} is taken: remove it, or give another output_dir=") from error
        except OSError as error:
            if (reason := disk_error(error)) is not None:
                raise WriteError(path, reason) from error
            raise UserError(f"cannot write {path}: {error.strerror}; give a writable output_dir=") from error
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
        """Read an existing run folder; a run recorded as running whose lock no process holds is interrupted.

        Raises:
            UserError: there is no run.json, or it is damaged.
        """
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder")
        try:
            record = read_record(path / RECORD)
            run = cls(path, {"id": record["id"], "stage": record["stage"], "status": record["status"], **record})
            wrong = [name for name in ("metrics", "cost", "sweep") if not isinstance(record.get(name) or {}, dict)]
            if wrong:
                raise ValueError(f"{wrong[0]} is no mapping")
            check_version((record.get("environment") or {}).get("warmstart"), path)
            check_names(record)
        except FileNotFoundError as error:
            raise UserError(f"{path} is not a run folder: it has no {RECORD}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path / RECORD} is damaged: {error}") from error
        except OSError as error:
            raise UserError(f"{path / RECORD} cannot be read: {error.strerror}") from error
        if record["status"] == "running" and not run.lock.is_held():
            run.record |= {"status": "interrupted", "error": "its process is gone"}
        return run

    def hold(self) -> None:
        """Lock the folder for this process, and remove temporary files that a killed one has left.

        Raises:
            UserError: another process is at work on it, or it holds links to elsewhere, which would be written through.
            WriteError: the disk is full, read-only or broken.
        """
        if self.lock.is_mine:
            return
        check_links(self.path)
        if not self.lock.acquire(PATIENCE):
            raise UserError(f"{self.path}: {self.lock.owner()} is at work on this run; wait until it has ended")
        self.lock.beat()
        remove_temporaries(self.path)
        if (self.path / RECORD).exists():  # written, perhaps, by the process that had the lock until now
            self.record = RunFolder.open(self.path).record

    def write_config(self, config: DictConfig) -> None:
        """Write config.yaml, and its checksum into the record."""
        content = OmegaConf.to_yaml(config, resolve=True)
        write_atomically(self.path / CONFIG, content)
        self.update(checksums={CONFIG: hashlib.sha256(content.encode()).hexdigest()})

    def note(self, **fields: Any) -> None:
        """Change fields of the record, for the next `update` to write; a number that is not finite is refused."""
        record = {**self.record, **fields}
        json.dumps(record, allow_nan=False)
        self.record = record

    def update(self, **fields: Any) -> None:
        """Change fields of run.json and rewrite it; a number that is not finite is refused and changes nothing."""
        before = self.record
        self.note(**fields)
        try:
            write_record(self.path / RECORD, self.record)
        except WriteError:
            self.record = before
            raise

    def checked(self, name: str) -> Path:
        """Return the path of a file of the run, where it is what the record says.

        Raises:
            UserError: it is damaged or missing. What is not done has no checksums of what it still writes.
        """
        digest = (self.record.get("checksums") or {}).get(name)
        if digest is not None:
            check_file(self.path / name, digest)
        elif self.record["status"] == "done" and (self.path / name).exists():
            raise UserError(f"{self.path / RECORD} is damaged: it has no checksum of {name}")
        return self.path / name

    def config(self, trust: tuple[str, ...] = ()) -> DictConfig:
        """The run's own resolved config, refused where it names code that is not a part of its group.

        Raises:
            UserError: the file is missing, damaged, or names a class of a package that is not trusted.
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
        given = {"trust": list(trust), "resume": None}  # which are for the user to say each time
        return OmegaConf.create({key: given.get(key, value) for key, value in plain.items()}, flags={"struct": True})

    @contextlib.contextmanager
    def recording(self) -> Iterator[RunFolder]:
        """Hold the run, and keep its status and log true while the block runs.

        It ends as done, failed with its traceback, pruned or interrupted, and the lock is given back. Inside another
        `recording` of the same run the outer one does all that.

        Raises:
            Interrupted: a signal came.
            UserError: another process is at work on the run.
        """
        if self.is_recording:
            yield self
            return
        self.is_recording = True
        try:
            self.hold()
            with logging_to(self.path / LOG):
                try:
                    own = (self.record.get("checksums") or {}).get(CONFIG)
                    self.update(status="running", error=None, checksums={CONFIG: own} if own else {})
                    unmet = None
                    try:
                        yield self
                    except Unmet as result:  # all is done and written
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
        """Record why a new run did not begin; remove its folder where it has no record yet."""
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
        """Record how the run ended, also where the disk is so full that only the lock's reserve has room for it."""
        if self.record["status"] == "done":  # a signal came while just that was being written
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
            self.lock.give_reserve()
            with contextlib.suppress(WriteError):  # a record that stays "running" is read as interrupted
                self.update(**end)

    def _checksums(self) -> dict[str, str]:
        """Of the files that are complete once the run is done; folders have their own."""
        names = {path.name for path in self.path.iterdir() if path.is_file()} - {RECORD, LOG, LOCK}
        return {name: file_sha256(self.path / name) for name in sorted(names) if not name.startswith("events.out.")}


def is_interrupt(error: BaseException) -> bool:
    """Return whether a signal asked to stop, or a cluster's launcher, which leaves with SystemExit."""
    return isinstance(error, (KeyboardInterrupt, SystemExit))
