"""The plain client against the loopback Hub: repositories, commits, large files, revisions, folders, cards.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

import os
from pathlib import Path

from checks import WORK, check, folder_of, hashes, log, main, raises
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    ModelCard,
    ModelCardData,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_labels.hub import commit_of

api = HfApi()
LARGE = {f"shard-{n}.safetensors": os.urandom(40_000 + n) for n in range(3)}
FOLDER = LARGE | {"config.json": b'{"a": 1}', "deep/er/notes.txt": "naïve ünïcode".encode(), "empty.txt": b""}


def new_repo(name: str, files: dict[str, bytes] | None = None, **options: object) -> str:
    repo = api.create_repo(f"tester/{name}", **options).repo_id
    if files:
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        api.create_commit(repo, operations, commit_message="files", repo_type=options.get("repo_type"))
    return repo


@check
def create_twice_needs_exist_ok():
    url = api.create_repo("tester/twice")
    assert url.repo_id == "tester/twice" and api.repo_exists("tester/twice")
    assert raises(HfHubHTTPError, api.create_repo, "tester/twice").response.status_code == 409
    assert api.create_repo("tester/twice", exist_ok=True).repo_id == "tester/twice"
    assert api.create_repo("short-name").repo_id == "tester/short-name"


@check
def whoami_knows_the_token():
    me = api.whoami()
    assert me["name"] == "tester" and me["auth"]["accessToken"]["role"] == "write"


@check
def regular_and_lfs_files_in_one_commit():
    repo = new_repo("mixed", FOLDER)
    assert api.list_repo_files(repo) == sorted([".gitattributes", *FOLDER])
    info = {entry.path: entry for entry in api.get_paths_info(repo, list(FOLDER))}
    assert {path for path, entry in info.items() if entry.lfs} == set(LARGE)
    for path, data in FOLDER.items():
        assert info[path].size == len(data)
        assert Path(hf_hub_download(repo, path)).read_bytes() == data, path
    assert len(log("lfs_put")) == 3 and len(log("commit")) == 1


@check
def token_goes_to_the_hub_but_never_to_the_storage_host():
    repo = new_repo("storage", {"w.bin": os.urandom(2000)})
    hf_hub_download(repo, "w.bin")
    assert all(entry["token"] for entry in log("commit") + log("preupload") + log("resolve"))
    storage = log("lfs_put") + log("cdn")
    assert len(storage) == 2 and not any(entry["token"] for entry in storage)


@check
def upload_folder_is_one_commit_and_the_second_is_none():
    folder = folder_of("upload", FOLDER | {"_private.txt": b"no", "checkpoint-1/model.bin": b"no"})
    repo, before = new_repo("folder"), hashes(folder)
    done = api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=["_*", "checkpoint-*"])
    assert api.list_repo_files(repo) == sorted([".gitattributes", *FOLDER])
    again = api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=["_*", "checkpoint-*"])
    assert again.oid == done.oid and len(api.list_repo_commits(repo)) == 2
    assert hashes(folder) == before


@check
def large_file_that_the_hub_has_is_not_sent_again():
    data = os.urandom(30_000)
    new_repo("first-copy", {"a.bin": data})
    repo = new_repo("second-copy", {"b.bin": data})
    assert len(log("lfs_put")) == 1
    assert Path(hf_hub_download(repo, "b.bin")).read_bytes() == data


@check
def upload_folder_can_delete_what_is_gone():
    repo = new_repo("stale", {"old.txt": b"old", "keep.md": b"keep"})
    folder = folder_of("fresh", {"new.txt": b"new"})
    api.upload_folder(repo_id=repo, folder_path=folder, delete_patterns="*.txt")
    assert api.list_repo_files(repo) == [".gitattributes", "keep.md", "new.txt"]


@check
def listings_are_paginated_and_unknown_paths_are_named():
    repo = new_repo("many", {f"part/{n:02d}.txt": b"%d" % n for n in range(13)})
    assert len(api.list_repo_files(repo)) == 14 and len(log("tree")) >= 3
    top = [entry.path for entry in api.list_repo_tree(repo)]
    assert sorted(top) == [".gitattributes", "part"]
    assert len(list(api.list_repo_tree(repo, "part", expand=True))) == 13
    raises(RemoteEntryNotFoundError, lambda: list(api.list_repo_tree(repo, "nowhere")))


@check
def branches_and_tags_keep_their_commit():
    repo = new_repo("revisions", {"f.txt": b"one"})
    api.create_tag(repo, tag="v1", tag_message="first")
    api.create_branch(repo, branch="feature/new")
    api.upload_file(path_or_fileobj=b"two", path_in_repo="f.txt", repo_id=repo, revision="feature/new")
    api.upload_file(path_or_fileobj=b"three", path_in_repo="f.txt", repo_id=repo)

    def read(revision: str | None) -> bytes:
        return Path(hf_hub_download(repo, "f.txt", revision=revision)).read_bytes()

    assert [read(r) for r in ("v1", "feature/new", None)] == [b"one", b"two", b"three"]
    assert read(api.repo_info(repo, revision="v1").sha) == b"one"
    refs = api.list_repo_refs(repo)
    assert {ref.name for ref in refs.branches} == {"main", "feature/new"} and [ref.name for ref in refs.tags] == ["v1"]
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="feature/new")
    raises(RevisionNotFoundError, api.model_info, repo, revision="v1")
    raises(HfHubHTTPError, api.delete_branch, repo, branch="main")


@check
def commit_of_a_revision_is_what_the_hub_says():
    repo = new_repo("commits", {"f.txt": b"one"})
    first = api.repo_info(repo).sha
    api.create_tag(repo, tag="v1")
    api.upload_file(path_or_fileobj=b"two", path_in_repo="f.txt", repo_id=repo)
    assert commit_of(repo, "v1") == commit_of(repo, first) == first != commit_of(repo) == api.repo_info(repo).sha
    assert commit_of(str(folder_of("plain", {"f.txt": b"x"}))) is None
    raises(RepositoryNotFoundError, commit_of, "tester/nowhere")
    raises(RevisionNotFoundError, commit_of, repo, "v9")
    constants.HF_HUB_OFFLINE = True
    try:
        assert commit_of(repo, "v1") == first and commit_of("tester/nowhere") is None
    finally:
        constants.HF_HUB_OFFLINE = False


@check
def stale_parent_commit_is_refused():
    repo = new_repo("parent", {"f.txt": b"one"})
    parent = api.repo_info(repo).sha
    api.upload_file(path_or_fileobj=b"two", path_in_repo="f.txt", repo_id=repo)
    late = raises(
        HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo="f.txt", repo_id=repo, parent_commit=parent
    )
    assert late.response.status_code == 412
    assert [commit.title for commit in api.list_repo_commits(repo)][-1] == "initial commit"


@check
def pull_request_leaves_main_alone():
    repo = new_repo("pull", {"f.txt": b"one"})
    done = api.upload_file(path_or_fileobj=b"two", path_in_repo="f.txt", repo_id=repo, create_pr=True)
    assert done.pr_revision == "refs/pr/1"
    assert Path(hf_hub_download(repo, "f.txt")).read_bytes() == b"one"
    assert Path(hf_hub_download(repo, "f.txt", revision="refs/pr/1")).read_bytes() == b"two"


@check
def copy_and_delete_operations():
    repo = new_repo("operations", {"a.bin": LARGE["shard-0.safetensors"], "b.txt": b"b", "d/x.txt": b"x"})
    operations = [
        CommitOperationCopy("a.bin", "copy/a.bin"),
        CommitOperationDelete("b.txt"),
        CommitOperationDelete("d/", is_folder=True),
    ]
    api.create_commit(repo, operations, commit_message="move things")
    assert api.list_repo_files(repo) == [".gitattributes", "a.bin", "copy/a.bin"]
    assert not api.file_exists(repo, "b.txt")
    raises(RemoteEntryNotFoundError, api.delete_file, "b.txt", repo)


@check
def snapshot_is_whole_and_then_comes_from_the_cache():
    repo = new_repo("snapshot", FOLDER)
    folder = Path(snapshot_download(repo))
    assert {p: (folder / p).read_bytes() for p in FOLDER} == FOLDER
    gets = len(log("cdn")) + len([e for e in log("resolve") if e["method"] == "GET"])
    assert Path(snapshot_download(repo)) == folder
    assert len(log("cdn")) + len([e for e in log("resolve") if e["method"] == "GET"]) == gets
    local = Path(snapshot_download(repo, local_dir=WORK / "local", allow_patterns=["*.json", "deep/*"]))
    kept = {str(p.relative_to(local)) for p in local.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert kept == {"config.json", "deep/er/notes.txt"}


@check
def changed_file_is_downloaded_again():
    repo = new_repo("changes", {"w.bin": b"\0" * 5000})
    first = hf_hub_download(repo, "w.bin")
    api.upload_file(path_or_fileobj=b"\1" * 5000, path_in_repo="w.bin", repo_id=repo)
    second = hf_hub_download(repo, "w.bin")
    assert Path(first).read_bytes() == b"\0" * 5000 and Path(second).read_bytes() == b"\1" * 5000


@check
def card_goes_up_and_comes_back():
    repo = new_repo("card")
    data = ModelCardData(library_name="transformers", license="apache-2.0", tags=["hf_labels"], language="en")
    ModelCard(f"---\n{data.to_yaml()}\n---\n# Ünï\n\ntext\n").push_to_hub(repo)
    card = ModelCard.load(repo)
    assert card.data.tags == ["hf_labels"] and "# Ünï" in card.text
    info = api.model_info(repo)
    assert (
        info.library_name == "transformers" and info.tags == ["hf_labels"] and info.card_data.license == "apache-2.0"
    )
    assert log("validate_yaml")


@check
def card_with_broken_metadata_is_refused_before_anything_is_sent():
    repo = new_repo("badcard")
    bad = b"---\ntags: [a\nlicense: : x\n---\ntext"
    operations = [CommitOperationAdd("README.md", bad), CommitOperationAdd("w.bin", b"\0" * 999)]
    error = raises(ValueError, api.create_commit, repo, operations, commit_message="bad")
    assert "Invalid metadata in README.md" in str(error)
    assert not log("lfs_put") and api.list_repo_files(repo) == [".gitattributes"]


@check
def private_repo_is_hidden_from_strangers():
    repo = new_repo("secret", {"f.txt": b"s"}, private=True)
    assert api.repo_info(repo).private is True
    assert Path(hf_hub_download(repo, "f.txt")).read_bytes() == b"s"
    for token in ("hf_other", False):
        error = raises(RepositoryNotFoundError, api.model_info, repo, token=token)
        assert error.repo_id == repo


@check
def space_and_dataset_repos_are_apart_from_models():
    for repo_type, options in (("dataset", {}), ("space", {"space_sdk": "static"})):
        new_repo("apart", {"index.html": repo_type.encode()}, repo_type=repo_type, **options)
        path = hf_hub_download("tester/apart", "index.html", repo_type=repo_type)
        assert Path(path).read_bytes() == repo_type.encode()
    raises(RepositoryNotFoundError, api.model_info, "tester/apart")
    assert api.space_info("tester/apart").sdk == "static"


@check
def file_system_reads_ranges():
    repo = new_repo("fs", {"data/w.bin": bytes(range(256)) * 100})
    fs = HfFileSystem()
    assert fs.ls(f"{repo}/data", detail=False) == [f"{repo}/data/w.bin"]
    with fs.open(f"{repo}/data/w.bin", block_size=1000) as file:
        file.seek(5000)
        assert file.read(10) == (bytes(range(256)) * 100)[5000:5010]
    assert any(entry["status"] == 206 for entry in log("cdn"))


@check
def deleted_repo_is_gone():
    repo = new_repo("gone", {"f.txt": b"x"})
    api.delete_repo(repo)
    assert not api.repo_exists(repo)
    raises(RepositoryNotFoundError, api.delete_repo, repo)
    api.delete_repo(repo, missing_ok=True)


if __name__ == "__main__":
    main()
