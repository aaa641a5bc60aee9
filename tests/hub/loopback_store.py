"""Storage behind the loopback Hub: repositories with a commit history, kept in memory.

A stand-in written by this project. It answers like the Hub where the client depends on the answer (object ids,
revisions, errors with their codes) and checks far less than the Hub does, so a test that passes against it proves the
client path, not the Hub's validation.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

REPO_TYPES = ("model", "dataset", "space")
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".pt", ".onnx", ".gguf", ".npz", ".zip", ".gz")
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


class HubFault(Exception):
    """An answer other than 2xx, with the code that the client turns into an exception class."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclass(frozen=True)
class Blob:
    """One file of one commit. `sha256` is set when the file is stored as LFS."""

    data: bytes
    oid: str
    sha256: str | None = None

    @classmethod
    def regular(cls, data: bytes) -> Blob:
        return cls(data, _git_oid(data))

    @classmethod
    def lfs(cls, data: bytes) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n"
        return cls(data, _git_oid(pointer.encode()), sha256)

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Blob]

    def log_entry(self) -> dict[str, Any]:
        return {
            "id": self.oid,
            "title": self.title,
            "message": self.message,
            "authors": [{"user": self.author}],
            "date": self.date,
        }


@dataclass
class Repo:
    """Branches and tags are names of commits; a commit holds its whole tree."""

    repo_type: str
    repo_id: str
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.add_commit(None, "initial commit", "", "system", {".gitattributes": Blob.regular(GITATTRIBUTES)})
        self.branches["main"] = first.oid

    def add_commit(self, parent: str | None, title: str, message: str, author: str, files: dict[str, Blob]) -> Commit:
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        listing = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(files.items()))
        oid = hashlib.sha1(
            f"{parent}\n{title}\n{message}\n{date}\n{len(self.commits)}\n{listing}".encode()
        ).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, message, author, date, files)
        return self.commits[oid]

    def resolve(self, revision: str) -> Commit:
        for names in (self.branches, self.tags, self.pulls):
            if revision in names:
                return self.commits[names[revision]]
        matches = [oid for oid in self.commits if oid.startswith(revision)] if len(revision) >= 7 else []
        if len(matches) == 1:
            return self.commits[matches[0]]
        raise HubFault(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, revision: str) -> list[Commit]:
        commit: Commit | None = self.resolve(revision)
        log: list[Commit] = []
        while commit is not None:
            log.append(commit)
            commit = self.commits[commit.parent] if commit.parent else None
        return log

    def card_data(self, commit: Commit) -> dict[str, Any]:
        readme = commit.files.get("README.md")
        match = FRONT_MATTER.match(readme.data.decode("utf-8", "replace")) if readme else None
        data = yaml.safe_load(match.group(1)) if match else None
        return data if isinstance(data, dict) else {}

    def info(self, commit: Commit, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(commit.files.items()):
            sibling: dict[str, Any] = {"rfilename": path}
            if blobs:
                sibling |= {"size": len(blob.data), "blobId": blob.oid}
                if blob.sha256:
                    sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 134}
            siblings.append(sibling)
        card = self.card_data(commit)
        first = next(iter(self.commits.values()))
        info = {
            "_id": first.oid[:24],
            "id": self.repo_id,
            "author": self.repo_id.split("/")[0],
            "sha": commit.oid,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "createdAt": first.date,
            "lastModified": commit.date,
            "siblings": siblings,
            "cardData": card,
            "tags": list(card.get("tags") or []),
        }
        if self.repo_type == "model":
            info |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
            info |= {"modelId": self.repo_id, "spaces": []}
        if self.repo_type == "space":
            info["sdk"] = self.sdk
        return info


class Store:
    """All repositories and the pool of uploaded large files. Every public method takes the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}

    def create(self, repo_type: str, repo_id: str, private: bool = False, sdk: str | None = None) -> Repo:
        with self.lock:
            if (repo_type, repo_id) in self.repos:
                raise HubFault(409, f"You already created this {repo_type} repo: {repo_id}")
            self.repos[repo_type, repo_id] = repo = Repo(repo_type, repo_id, private=private, sdk=sdk)
            return repo

    def get(self, repo_type: str, repo_id: str) -> Repo:
        with self.lock:
            if (repo_type, repo_id) not in self.repos:
                raise HubFault(404, "Repository not found", "RepoNotFound")
            return self.repos[repo_type, repo_id]

    def delete(self, repo_type: str, repo_id: str) -> None:
        with self.lock:
            self.get(repo_type, repo_id)
            del self.repos[repo_type, repo_id]

    def upload_mode(self, path: str, size: int, sample: bytes) -> str:
        binary = b"\0" in sample
        return "lfs" if path.endswith(LFS_SUFFIXES) or size > 10_000_000 or binary else "regular"

    def put_large(self, sha256: str, data: bytes) -> None:
        got = hashlib.sha256(data).hexdigest()
        if got != sha256:
            raise HubFault(400, f"The uploaded content has sha256 {got}, but {sha256} was announced.")
        with self.lock:
            self.large[sha256] = data

    def commit(
        self, repo: Repo, revision: str, lines: list[dict], author: str, pull_request: bool
    ) -> tuple[Commit, str]:
        """Apply a commit whole or not at all. Returns it, and the name of the ref that now points to it."""
        with self.lock:
            header = next((line["value"] for line in lines if line["key"] == "header"), None)
            if header is None:
                raise HubFault(400, "The commit has no header line.")
            if not pull_request and revision not in repo.branches and revision not in repo.pulls:
                raise HubFault(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            base = repo.resolve(revision)
            wanted = header.get("parentCommit")
            if wanted and not pull_request and wanted != base.oid:
                raise HubFault(412, "A commit has happened since. Please refresh and try again.")
            files = dict(base.files)
            for line in lines:
                self._apply(line["key"], line["value"], files)
            commit = repo.add_commit(base.oid, header["summary"], header.get("description", ""), author, files)
            if pull_request:
                ref = f"refs/pr/{len(repo.pulls) + 1}"
                repo.pulls[ref] = commit.oid
            else:
                ref = revision
                (repo.pulls if revision in repo.pulls else repo.branches)[revision] = commit.oid
            return commit, ref

    def _apply(self, key: str, value: dict, files: dict[str, Blob]) -> None:
        path = value.get("path", "")
        if key == "header":
            return
        if key == "file":
            files[path] = Blob.regular(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in self.large:
                raise HubFault(400, f"LFS pointer of '{path}' pointed to a file that does not exist: {value['oid']}")
            files[path] = Blob.lfs(self.large[value["oid"]])
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise HubFault(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        elif key == "deletedFolder":
            doomed = [name for name in files if name.startswith(path.rstrip("/") + "/")]
            if not doomed:
                raise HubFault(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
            for name in doomed:
                del files[name]
        else:
            raise HubFault(400, f"Unknown commit operation: {key}")


def entries(commit: Commit, folder: str, recursive: bool, expand: bool) -> list[dict[str, Any]]:
    """Files and folders under `folder` (the root when it is empty), as the tree route lists them."""
    prefix = folder.strip("/") + "/" if folder.strip("/") else ""
    below = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
    if prefix and not below:
        raise HubFault(404, f"{folder} does not exist on '{commit.oid}'", "EntryNotFound")
    folders: set[str] = set()
    shown: list[dict[str, Any]] = []
    for path, blob in sorted(below.items()):
        parts = path[len(prefix) :].split("/")
        depth = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
        folders |= {prefix + "/".join(parts[:n]) for n in depth}
        if recursive or len(parts) == 1:
            shown.append(file_entry(path, blob, commit, expand))
    return [folder_entry(name, commit, expand) for name in sorted(folders)] + shown


def path_entries(commit: Commit, paths: list[str], expand: bool) -> list[dict[str, Any]]:
    """What the paths-info route says: one entry for every path that exists, nothing for the others."""
    found = []
    for path in (path.strip("/") for path in paths):
        if path in commit.files:
            found.append(file_entry(path, commit.files[path], commit, expand))
        elif any(name.startswith(path + "/") for name in commit.files):
            found.append(folder_entry(path, commit, expand))
    return found


def file_entry(path: str, blob: Blob, commit: Commit, expand: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 134}
    return entry | _last_commit(commit, expand)


def folder_entry(path: str, commit: Commit, expand: bool) -> dict[str, Any]:
    oid = hashlib.sha1(path.encode()).hexdigest()
    return {"type": "directory", "oid": oid, "size": 0, "path": path} | _last_commit(commit, expand)


def _last_commit(commit: Commit, expand: bool) -> dict[str, Any]:
    return {"lastCommit": {"id": commit.oid, "title": commit.title, "date": commit.date}} if expand else {}


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
