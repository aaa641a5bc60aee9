"""Routes of the loopback Hub: one function per request that the client makes.

A protocol stand-in written by this project; see `loopback_hub.py`. Answers follow what `huggingface_hub` 2.4 reads.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

import yaml
from loopback_store import FRONT_MATTER, Commit, HubFault, Repo, entries, path_entries

if TYPE_CHECKING:
    from loopback_hub import LoopbackHub, User

API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/]+(?:/[^/]+)?)"
FILE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<rev>[^/]+)/(?P<path>.+)"
ROUTES: dict[str, tuple[str, str]] = {
    "whoami": ("GET", "/api/whoami-v2"),
    "create": ("POST", "/api/repos/create"),
    "delete": ("DELETE", "/api/repos/delete"),
    "validate_yaml": ("POST", "/api/validate-yaml"),
    "refs": ("GET", API + "/refs"),
    "commits": ("GET", API + "/commits/(?P<rev>[^/]+)"),
    "tree": ("GET", API + "/tree/(?P<rev>[^/]+)(?:/(?P<path>.*))?"),
    "paths_info": ("POST", API + "/paths-info/(?P<rev>[^/]+)"),
    "preupload": ("POST", API + "/preupload/(?P<rev>[^/]+)"),
    "commit": ("POST", API + "/commit/(?P<rev>[^/]+)"),
    "branch": ("POST", API + "/branch/(?P<name>[^/]+)"),
    "branch_delete": ("DELETE", API + "/branch/(?P<name>[^/]+)"),
    "tag": ("POST", API + "/tag/(?P<rev>[^/]+)"),
    "tag_delete": ("DELETE", API + "/tag/(?P<name>[^/]+)"),
    "settings": ("PUT", API + "/settings"),
    "auth_check": ("GET", API + "/auth-check"),
    "info": ("GET", API + "(?:/revision/(?P<rev>[^/]+))?"),
    "lfs_batch": ("POST", r"/(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    "lfs_put": ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})"),
    "lfs_verify": ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify"),
    "cdn": ("GET", r"/cdn/(?P<oid>[0-9a-f]{64})"),
    "resolve": ("GET", FILE),
}
_COMPILED = {name: (method, re.compile(pattern)) for name, (method, pattern) in ROUTES.items()}


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def find_route(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Name of the route and its parts, percent-decoded; an empty name when no route fits."""
    method = "GET" if method == "HEAD" else method
    for name, (verb, pattern) in _COMPILED.items():
        match = pattern.fullmatch(path) if verb == method else None
        if match:
            return name, {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
    return "", {}


@dataclass
class Call:
    """One request, with what its route needs to answer."""

    hub: LoopbackHub
    user: User | None
    groups: dict[str, str]
    query: dict[str, str]
    body: bytes
    headers: dict[str, str]

    @property
    def payload(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")

    def writer(self, namespace: str) -> User:
        if self.user is None:
            raise HubFault(401, "Invalid username or password.")
        if not self.user.write:
            raise HubFault(403, "Forbidden: this token has only the read role, a write token is required")
        if namespace != self.user.name:
            raise HubFault(403, f"You don't have the rights to write under the namespace '{namespace}'")
        return self.user

    def repo(self, write: bool = False, content: bool = False) -> Repo:
        kind, repo_id = self.groups.get("kind") or "models", self.groups["repo"]
        owner = self.user is not None and self.user.name == repo_id.split("/")[0]
        try:
            repo = self.hub.store.get(kind[:-1], repo_id)
            if repo.private and not owner:
                raise HubFault(404, "Repository not found", "RepoNotFound")
        except HubFault as fault:
            if self.user is None:  # the Hub does not tell a stranger whether the repository exists
                raise HubFault(401, "Invalid username or password.", "RepoNotFound") from fault
            raise
        if write:
            self.writer(repo_id.split("/")[0])
        if content and repo.gated and not owner:
            ask = f"Access to {kind[:-1]} {repo_id} is restricted"
            if self.user is None:
                raise HubFault(401, f"{ask}. You must be authenticated to access it. Please log in.", "GatedRepo")
            raise HubFault(403, f"{ask} and you are not in the authorized list. Ask for access.", "GatedRepo")
        return repo


def answer(
    hub: LoopbackHub,
    route: str,
    user: User | None,
    groups: dict[str, str],
    query: dict[str, str],
    body: bytes,
    headers: dict[str, str],
) -> Reply:
    handler: Callable[[Call], Reply] = globals()[f"on_{route}"]
    with hub.store.lock:
        return handler(Call(hub, user, groups, query, body, headers))


def on_whoami(call: Call) -> Reply:
    if call.user is None:
        raise HubFault(401, "Invalid username or password.")
    role = "write" if call.user.write else "read"
    token = {"displayName": "loopback", "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
    user = {"type": "user", "id": "0" * 24, "name": call.user.name, "fullname": call.user.name, "orgs": []}
    return Reply.json(user | {"auth": {"type": "access_token", "accessToken": token}})


def on_create(call: Call) -> Reply:
    payload = call.payload
    namespace = payload.get("organization") or (call.user.name if call.user else "")
    call.writer(namespace)
    repo_type, repo_id = payload.get("type") or "model", f"{namespace}/{payload['name']}"
    url = f"{call.hub.url}/{'' if repo_type == 'model' else repo_type + 's/'}{repo_id}"
    try:
        private = payload.get("visibility") == "private" or bool(payload.get("private"))
        call.hub.store.create(repo_type, repo_id, private=private, sdk=payload.get("sdk"))
    except HubFault as fault:
        return Reply.json({"error": fault.message, "url": url}, fault.status)
    return Reply.json({"url": url, "name": repo_id})


def on_delete(call: Call) -> Reply:
    payload = call.payload
    namespace = payload.get("organization") or (call.user.name if call.user else "")
    call.writer(namespace)
    call.hub.store.delete(payload.get("type") or "model", f"{namespace}/{payload['name']}")
    return Reply.json({"success": True})


def on_validate_yaml(call: Call) -> Reply:
    match = FRONT_MATTER.match(call.payload.get("content", ""))
    warning = [] if match else [{"message": "empty or missing yaml metadata in repo card"}]
    try:
        data = yaml.safe_load(match.group(1)) if match else {}
        errors = [] if data is None or isinstance(data, dict) else [{"message": "metadata must be a mapping"}]
    except yaml.YAMLError as error:
        errors = [{"message": f"invalid YAML: {error}"}]
    return Reply.json({"errors": errors, "warnings": warning}, 400 if errors else 200)


def on_info(call: Call) -> Reply:
    repo = call.repo()
    return Reply.json(repo.info(repo.resolve(call.groups.get("rev", "main")), call.flag("blobs")))


def on_refs(call: Call) -> Reply:
    repo = call.repo()

    def listed(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in names.items()]

    refs: dict[str, Any] = {"branches": listed(repo.branches, "refs/heads/"), "tags": listed(repo.tags, "refs/tags/")}
    return Reply.json(refs | {"converts": [], "pullRequests": listed(repo.pulls, "")})


def on_commits(call: Call) -> Reply:
    return Reply.json([commit.log_entry() for commit in call.repo().history(call.groups["rev"])])


def on_tree(call: Call) -> Reply:
    commit = call.repo().resolve(call.groups["rev"])
    found = entries(commit, call.groups.get("path", ""), call.flag("recursive"), call.flag("expand"))
    start, size = int(call.query.get("cursor", 0)), call.hub.page_size
    reply = Reply.json(found[start : start + size])
    if start + size < len(found):
        parts = {key: value for key, value in call.query.items() if key != "cursor"} | {"cursor": str(start + size)}
        query = "&".join(f"{key}={quote(value)}" for key, value in parts.items())
        kind, repo = call.groups["kind"], call.groups["repo"]
        path = "/".join(quote(call.groups[key], safe="") for key in ("rev", "path") if call.groups.get(key))
        reply.headers["Link"] = f'<{call.hub.url}/api/{kind}/{repo}/tree/{path}?{query}>; rel="next"'
    return reply


def on_paths_info(call: Call) -> Reply:
    if "json" in call.headers.get("Content-Type", ""):
        payload = call.payload
        paths, expand = payload.get("paths", []), bool(payload.get("expand"))
    else:
        form = parse_qs(call.body.decode())
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[-1].lower() == "true"
    return Reply.json(path_entries(call.repo().resolve(call.groups["rev"]), paths, expand))


def on_preupload(call: Call) -> Reply:
    files = []
    commit = call.repo(write=True).resolve(call.groups["rev"])
    for item in call.payload["files"]:
        mode = call.hub.store.upload_mode(item["path"], item["size"], base64.b64decode(item.get("sample", "")))
        known = commit.files.get(item["path"])
        files.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False})
        files[-1]["oid"] = known.etag if known else None
    return Reply.json({"files": files, "commitOid": commit.oid})


def on_lfs_batch(call: Call) -> Reply:
    call.repo(write=True)
    objects = []
    for item in call.payload["objects"]:
        objects.append({"oid": item["oid"], "size": item["size"]})
        if item["oid"] not in call.hub.store.large:
            path = f"/lfs/{item['oid']}"
            verify = {"href": f"{call.hub.url}{path}/verify"}
            objects[-1]["actions"] = {"upload": {"href": call.hub.storage_url + path}, "verify": verify}
    return Reply.json({"transfer": "basic", "objects": objects})


def on_lfs_put(call: Call) -> Reply:
    call.hub.store.put_large(call.groups["oid"], call.body)
    return Reply()


def on_lfs_verify(call: Call) -> Reply:
    data = call.hub.store.large.get(call.groups["oid"])
    if data is None or len(data) != call.payload["size"]:
        raise HubFault(404, "The uploaded object is missing or has another size.")
    return Reply.json({"success": True})


def on_commit(call: Call) -> Reply:
    repo, pull_request = call.repo(write=True), call.flag("create_pr")
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    author = call.user.name if call.user else ""
    commit, ref = call.hub.store.commit(repo, call.groups["rev"], lines, author, pull_request)
    url = f"{call.hub.url}/{'' if repo.repo_type == 'model' else repo.repo_type + 's/'}{repo.repo_id}"
    done = {"success": True, "commitOid": commit.oid, "commitUrl": f"{url}/commit/{commit.oid}", "hookOutput": ""}
    return Reply.json(
        done | ({"pullRequestUrl": f"{url}/discussions/{ref.rsplit('/', 1)[1]}"} if pull_request else {})
    )


def on_branch(call: Call) -> Reply:
    repo = call.repo(write=True)
    if call.groups["name"] in repo.branches:
        raise HubFault(409, f"Reference already exists: {call.groups['name']}")
    repo.branches[call.groups["name"]] = repo.resolve(call.payload.get("startingPoint") or "main").oid
    return Reply.json({"success": True})


def on_branch_delete(call: Call) -> Reply:
    repo, name = call.repo(write=True), call.groups["name"]
    if name == "main":
        raise HubFault(403, "The branch main is protected")
    if repo.branches.pop(name, None) is None:
        raise HubFault(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return Reply.json({"success": True})


def on_tag(call: Call) -> Reply:
    repo, name = call.repo(write=True), call.payload["tag"]
    if name in repo.tags:
        raise HubFault(409, f"Tag reference exists already: {name}")
    repo.tags[name] = repo.resolve(call.groups["rev"]).oid
    return Reply.json({"success": True})


def on_tag_delete(call: Call) -> Reply:
    if call.repo(write=True).tags.pop(call.groups["name"], None) is None:
        raise HubFault(404, f"Invalid rev id: {call.groups['name']}", "RevisionNotFound")
    return Reply.json({"success": True})


def on_settings(call: Call) -> Reply:
    repo, payload = call.repo(write=True), call.payload
    repo.gated = bool(payload.get("gated", repo.gated))
    repo.private = payload.get("visibility", "private" if repo.private else "public") == "private"
    return Reply.json({"private": repo.private, "gated": repo.gated})


def on_auth_check(call: Call) -> Reply:
    call.repo(content=True)
    return Reply.json({})


def on_resolve(call: Call) -> Reply:
    commit: Commit = call.repo(content=True).resolve(call.groups["rev"])
    blob = commit.files.get(call.groups["path"])
    if blob is None:
        raise HubFault(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
    if blob.sha256 is None:
        return _content(blob.data, call, headers)
    headers |= {"Location": f"{call.hub.storage_url}/cdn/{blob.sha256}?file={quote(call.groups['path'])}"}
    headers["X-Linked-Size"] = str(len(blob.data))
    return Reply(302, b"", headers | {"X-Linked-ETag": f'"{blob.etag}"'})


def on_cdn(call: Call) -> Reply:
    data = call.hub.store.large.get(call.groups["oid"])
    if data is None:
        raise HubFault(404, "No such object.")
    name = call.query.get("file", call.groups["oid"]).rsplit("/", 1)[-1]
    headers = {"ETag": f'"{call.groups["oid"]}"', "Accept-Ranges": "bytes"}
    return _content(data, call, headers | {"Content-Disposition": f'inline; filename="{name}";'})


def _content(data: bytes, call: Call, headers: dict[str, str]) -> Reply:
    headers["Content-Type"] = "application/octet-stream"
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", ""))
    if not match or not any(match.groups()):
        return Reply(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= len(data):
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})
