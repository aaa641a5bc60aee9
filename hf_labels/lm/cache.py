"""Answers on disk: one SQLite file that several processes may share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FILE_NAME = "bblm.sqlite3"
BUSY_TIMEOUT_S = 30.0
_COLUMNS = ("key", "value", "created", "usage")
_CHUNK = 500  # keys in one SELECT


def cache_key(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no white space, not escaped to ASCII) of the content.

    Raises:
        TypeError: If a value is not JSON.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class MemoryCache:
    """The same for one process, gone at its end: what a method uses when the user's model has no `cache_dir`."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of the keys that are there."""
        return {key: self._values[key] for key in keys if key in self._values}

    def put_many(self, items: Iterable[tuple[str, Any, Mapping[str, Any]]]) -> None:
        """Keep `(key, JSON value, usage)`."""
        self._values.update((key, value) for key, value, _ in items)

    def __len__(self) -> int:
        return len(self._values)


class DiskCache:
    """Key -> JSON value in `folder/bblm.sqlite3` (write-ahead log, 30 s busy timeout).

    Safe for several threads and processes, and after a fork. A file that is not a database of ours is moved aside to
    `bblm.sqlite3.bad` with a warning. Pickles as its folder.

    Parameters:
        folder (`str | Path`): Made if it is not there.

    Raises:
        OSError: If the folder or file cannot be opened.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        self.path = self.folder / FILE_NAME
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._inherited: list[sqlite3.Connection] = []  # opened by a parent process: never to be closed here

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of the keys that are there."""
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        rows = self._guarded(lambda: self._select(wanted))
        found = {}
        for key, value in rows:
            try:
                found[key] = json.loads(value)
            except (ValueError, TypeError):
                logger.warning("A damaged value in %s is computed again.", self.path)
        return found

    def put_many(self, items: Iterable[tuple[str, Any, Mapping[str, Any]]]) -> None:
        """Store `(key, JSON value, usage)`. A full or locked disk gives a warning: no answer is lost over it."""
        now = time.time()
        rows = [
            (key, json.dumps(value, ensure_ascii=True).encode(), now, json.dumps(dict(usage)))
            for key, value, usage in items
        ]
        if not rows:
            return
        try:
            self._guarded(lambda: self._insert(rows))
        except (sqlite3.Error, OSError) as error:
            logger.warning("%d answers could not be stored in %s: %s.", len(rows), self.path, error)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                if self._process == os.getpid():
                    self._connection.close()
                else:
                    self._inherited.append(self._connection)
            self._connection = None

    def __len__(self) -> int:
        return self._guarded(lambda: self._connect().execute("SELECT COUNT(*) FROM cache").fetchone()[0])

    def _select(self, keys: list[str]) -> list[tuple[str, bytes]]:
        connection, rows = self._connect(), []
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            rows += connection.execute(f"SELECT key, value FROM cache WHERE key IN ({marks})", chunk).fetchall()
        return rows

    def _insert(self, rows: list[tuple[str, bytes, float, str]]) -> None:
        connection = self._connect()
        with connection:
            connection.executemany("INSERT OR REPLACE INTO cache (key, value, created, usage) VALUES (?,?,?,?)", rows)

    def _guarded(self, action: Any) -> Any:
        """Do it; if the file turns out to be damaged, start afresh and do it once more."""
        with self._lock:
            try:
                return action()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._move_aside(error)
                return action()

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._process == os.getpid():
                return self._connection
            self._inherited.append(self._connection)
            self._connection = None
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise OSError(f"The cache {self.path} cannot be opened: {error}. Give another `cache_dir`.") from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._process = connection, os.getpid()
        return connection

    @staticmethod
    def _prepare(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:  # the switch to the write-ahead log does not wait for other processes by itself
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                with connection:
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, value BLOB, created REAL, usage TEXT)"
                    )
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(cache)"))
        if columns != _COLUMNS:
            raise sqlite3.DatabaseError(f"malformed: the table has the columns {list(columns)}")

    def _is_whole(self) -> bool:
        try:
            return self._connect().execute("PRAGMA quick_check").fetchone()[0] == "ok"
        except sqlite3.DatabaseError:
            return False
        finally:
            self.close()

    def _move_aside(self, error: Exception) -> None:
        self.close()
        if self._is_whole():  # another process has just done it
            return
        aside = self.path.with_name(FILE_NAME + ".bad")
        number = 0
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{FILE_NAME}.bad.{number}")
        logger.warning(
            "The cache %s is damaged (%s). It is moved to %s, and an empty one is started.", self.path, error, aside
        )
        for suffix in ("", "-wal", "-shm"):
            part = Path(str(self.path) + suffix)
            if part.exists():
                os.replace(part, Path(str(aside) + suffix))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Damage, and not a lock, a full disk or missing rights."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return "malformed" in str(error) or "not a database" in str(error)
