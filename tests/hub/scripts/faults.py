"""What the client says and leaves behind when the Hub refuses, fails in the middle, or sends damaged files.

Every refusal is also given to `hf_labels.hub.explain_hub_error`, whose sentence must name the cause. The loopback Hub
is a protocol stand-in written by this project: these checks prove the client path only. Waiting between retries is cut
to a hundredth of a second; the number of tries is the client's own.
"""

import os
import time
from pathlib import Path

from checks import WORK, check, faults, folder_of, hashes, hits, log, main, raises
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_labels.hub import explain_hub_error, failed_pushes

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(min(seconds, 0.01))

api = HfApi()


def fresh() -> dict[str, bytes]:
    """A model's files with contents that no other check has sent."""
    return {f"shard-{n}.safetensors": os.urandom(60_000 + n) for n in range(3)} | {"config.json": b"{}"}


def new_repo(name: str, files: dict[str, bytes] | None = None) -> str:
    repo = api.create_repo(f"tester/{name}").repo_id
    if files:
        api.upload_folder(repo_id=repo, folder_path=folder_of(f"seed-{name}", files))
    faults()
    return repo


def untouched(repo: str) -> bool:
    return api.list_repo_files(repo) == [".gitattributes"] and len(api.list_repo_commits(repo)) == 1


def says(error: BaseException, *words: str) -> None:
    text = explain_hub_error(error)
    assert text and all(word in text for word in words), f"{text!r} lacks one of {words}"
    assert "hf_test" not in text and "hf_wrong" not in text and "\n" not in text


def in_cache(repo: str) -> list[str]:
    """Content files of this repository in the cache, finished or not."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    kept = [folder / "blobs", folder / "snapshots"]
    return [str(path) for part in kept for path in part.rglob("*") if path.is_file() or path.is_symlink()]


@check
def missing_repo_is_named():
    for call in (api.model_info, snapshot_download, lambda repo: hf_hub_download(repo, "config.json")):
        error = raises(RepositoryNotFoundError, call, "tester/nowhere")
        assert error.repo_id == "tester/nowhere"
        says(error, "`tester/nowhere`", "was not found", "hf auth login")
    error = raises(RepositoryNotFoundError, api.upload_folder, repo_id="tester/nowhere", folder_path=WORK)
    says(error, "`tester/nowhere`")
    says(raises(RepositoryNotFoundError, api.dataset_info, "tester/no-data"), "data set `tester/no-data`")


@check
def missing_revision_and_missing_file_are_named():
    repo = new_repo("present", {"config.json": b"{}"})
    says(raises(RevisionNotFoundError, hf_hub_download, repo, "config.json", revision="v9"), repo, "revision")
    error = raises(RemoteEntryNotFoundError, hf_hub_download, repo, "no.json")
    says(error, repo, "`no.json`", "`main`")


@check
def wrong_token_is_401_and_changes_nothing():
    files = fresh()
    repo, folder = new_repo("guarded"), folder_of("guarded", files)
    before, stranger = hashes(folder), HfApi(token="hf_wrong")
    calls = [stranger.whoami, lambda: stranger.upload_folder(repo_id=repo, folder_path=folder)]
    calls += [lambda: stranger.create_repo("tester/x"), lambda: stranger.hf_hub_download(repo, ".gitattributes")]
    for call in calls:
        error = raises(HfHubHTTPError, call)
        assert error.response.status_code == 401
        says(error, "wrong or expired", "hf auth login")
    assert untouched(repo) and hashes(folder) == before and not api.repo_exists("tester/x")


@check
def token_without_write_role_is_403():
    repo, reader = new_repo("readonly"), HfApi(token="hf_read")
    error = raises(HfHubHTTPError, reader.upload_file, path_or_fileobj=b"x", path_in_repo="f.txt", repo_id=repo)
    assert error.response.status_code == 403 and "read role" in str(error)
    says(error, "no permission", "write role", "Nothing was committed")
    assert untouched(repo)


@check
def foreign_namespace_is_403():
    error = raises(HfHubHTTPError, api.create_repo, "somebody-else/model")
    assert error.response.status_code == 403
    says(error, "somebody-else", "no permission")


@check
def no_token_is_told_apart_from_a_wrong_one():
    repo, token = new_repo("tokenless"), os.environ.pop("HF_TOKEN")
    try:
        says(raises(LocalTokenNotFoundError, api.whoami), "No access token", "HF_TOKEN")
        error = raises(HfHubHTTPError, api.upload_file, path_or_fileobj=b"x", path_in_repo="f", repo_id=repo)
        assert error.response.status_code == 401
        says(error, "missing", "hf auth login", "Nothing was committed")
        hf_hub_download(repo, ".gitattributes")  # reading a public repository needs none
    finally:
        os.environ["HF_TOKEN"] = token
    assert untouched(repo)


@check
def gated_repo_is_403_and_says_what_to_accept():
    files = fresh()
    repo = new_repo("gated", files)
    api.update_repo_settings(repo, gated="manual")
    for token in ("hf_other", False):
        error = raises(GatedRepoError, hf_hub_download, repo, "config.json", token=token)
        assert error.response.status_code == (403 if token else 401)
        says(error, repo, "is gated", "accept the conditions")
    assert Path(hf_hub_download(repo, "config.json")).read_bytes() == b"{}"


@check
def transient_500_on_a_large_file_is_retried():
    files = fresh()
    repo, folder = new_repo("shaky"), folder_of("shaky", files)
    faults({"route": "lfs_put", "times": 2, "skip": 1}, {"route": "preupload", "times": 1, "status": 503})
    api.upload_folder(repo_id=repo, folder_path=folder)
    statuses = sorted(entry["status"] for entry in log("lfs_put"))
    assert statuses == [200, 200, 200, 500, 500] and len(log("commit")) == 1
    assert hashes(Path(snapshot_download(repo, ignore_patterns=".git*"))) == hashes(folder)


@check
def connection_lost_in_the_middle_of_a_large_file_is_retried():
    files = fresh()
    repo, folder = new_repo("cut"), folder_of("cut", files)
    faults({"route": "lfs_put", "kind": "hangup", "times": 1})
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert sorted(entry["status"] for entry in log("lfs_put")) == [0, 200, 200, 200]
    assert hashes(Path(snapshot_download(repo, ignore_patterns=".git*"))) == hashes(folder)


@check
def permanent_500_in_the_middle_of_an_upload_commits_nothing():
    files = fresh()
    repo, folder = new_repo("broken"), folder_of("broken", files)
    before = hashes(folder)
    faults({"route": "lfs_put", "skip": 1})
    error = raises(RuntimeError, api.upload_folder, repo_id=repo, folder_path=folder)
    assert "Error while uploading" in str(error) and len(log("lfs_put")) >= 1 + 6
    says(error, "error 500", "the upload", "Nothing was committed", "local files are whole")
    assert not log("commit") and untouched(repo) and hashes(folder) == before
    sent = {entry["path"] for entry in log("lfs_put") if entry["status"] == 200}
    faults()
    api.upload_folder(repo_id=repo, folder_path=folder)
    again = {entry["path"] for entry in log("lfs_put")}
    assert len(sent) >= 1 and not sent & again and len(sent | again) == 3  # what had arrived is not sent again
    assert hashes(Path(snapshot_download(repo, ignore_patterns=".git*"))) == before


@check
def failed_commit_is_an_error_at_once_and_leaves_the_repo_as_it_was():
    files = fresh()
    repo, folder = new_repo("halfway"), folder_of("halfway", files)
    before = hashes(folder)
    faults({"route": "commit", "times": 1})
    error = raises(HfHubHTTPError, api.upload_folder, repo_id=repo, folder_path=folder)
    assert error.response.status_code == 500 and len(log("commit")) == 1  # the client does not repeat a commit
    says(error, "error 500", "Nothing was committed")
    assert untouched(repo) and hashes(folder) == before
    faults()
    api.upload_folder(repo_id=repo, folder_path=folder)
    assert not log("lfs_put") and sorted(files) == api.list_repo_files(repo)[1:]


@check
def failed_push_in_the_background_can_be_read_from_its_future():
    files = fresh()
    repo, folder = new_repo("background"), folder_of("background", files)
    faults({"route": "commit"})
    job = api.upload_folder(repo_id=repo, folder_path=folder, run_as_future=True)
    job.exception(timeout=60)
    (text,) = failed_pushes([job])
    assert "error 500" in text and untouched(repo)


@check
def cut_download_resumes_where_it_stopped():
    files = fresh()
    repo = new_repo("resume", files)
    faults({"route": "cdn", "kind": "drop", "times": 1, "cut": 0.4})
    constants.DOWNLOAD_CHUNK_SIZE = 1000  # only whole chunks are kept, and 10 MB is more than these files hold
    path = hf_hub_download(repo, "shard-0.safetensors")
    assert Path(path).read_bytes() == files["shard-0.safetensors"]
    assert [entry["status"] for entry in log("cdn")] == [200, 206]


@check
def download_that_never_ends_is_an_error_and_leaves_no_file():
    files = fresh()
    repo = new_repo("endless", files)
    faults({"route": "cdn", "kind": "drop"})
    error = raises(Exception, hf_hub_download, repo, "shard-0.safetensors")
    says(error, "broke off", "again")
    assert len(log("cdn")) >= 6 and not in_cache(repo)
    faults()
    path = hf_hub_download(repo, "shard-0.safetensors")
    assert Path(path).read_bytes() == files["shard-0.safetensors"]


@check
def short_download_fails_its_size_check_and_leaves_no_file():
    files = fresh()
    repo = new_repo("short", files)
    faults({"route": "cdn", "kind": "short"})
    error = raises(OSError, hf_hub_download, repo, "shard-1.safetensors")
    assert "Consistency check failed" in str(error)
    says(error, "shard-1.safetensors", "30000 of 60001 bytes", "again")
    assert not in_cache(repo)
    faults()
    assert Path(hf_hub_download(repo, "shard-1.safetensors")).read_bytes() == files["shard-1.safetensors"]


@check
def broken_snapshot_is_not_taken_for_a_whole_one():
    files = fresh()
    repo = new_repo("partial", files)
    faults({"route": "cdn", "kind": "short", "skip": 1})
    says(raises(OSError, snapshot_download, repo, max_workers=1), "cut off")
    faults({"route": "info"}, {"route": "tree"})  # the Hub is down: only the cache could answer
    says(raises(LocalEntryNotFoundError, snapshot_download, repo), "Hub")
    faults()
    folder = Path(snapshot_download(repo))
    assert {path: (folder / path).read_bytes() for path in files} == files


@check
def altered_bytes_of_the_right_length_are_found_by_the_checksum_command():
    files = fresh()
    repo = new_repo("altered", files)
    faults({"route": "cdn", "kind": "flip", "times": 1})
    path = Path(hf_hub_download(repo, "shard-2.safetensors"))  # the client compares only the length
    assert path.read_bytes() != files["shard-2.safetensors"]
    snapshot_download(repo)
    found = api.verify_repo_checksums(repo)
    assert [mismatch["path"] for mismatch in found.mismatches] == ["shard-2.safetensors"]
    path = Path(hf_hub_download(repo, "shard-2.safetensors", force_download=True))
    assert path.read_bytes() == files["shard-2.safetensors"] and not api.verify_repo_checksums(repo).mismatches


@check
def slow_hub_falls_back_to_the_cache_or_waits():
    files = fresh()
    repo = new_repo("slow", files)
    path = hf_hub_download(repo, "config.json")
    faults({"route": "resolve", "kind": "slow", "seconds": 0.6, "times": 2})
    assert hf_hub_download(repo, "config.json", etag_timeout=0.1) == path
    data = Path(hf_hub_download(repo, "shard-0.safetensors", etag_timeout=0.1)).read_bytes()
    assert data == files["shard-0.safetensors"] and hits() == [2]


@check
def rate_limit_is_waited_for():
    files = fresh()
    repo = new_repo("limited", files)
    faults({"route": "cdn", "status": 429, "times": 1})
    path = hf_hub_download(repo, "shard-0.safetensors")
    assert Path(path).read_bytes() == files["shard-0.safetensors"]
    assert [entry["status"] for entry in log("cdn")] == [429, 200]


@check
def hub_that_is_down_serves_from_the_cache_or_says_so():
    files = fresh()
    repo = new_repo("down", files)
    path, endpoint = hf_hub_download(repo, "config.json"), "http://127.0.0.1:9"
    assert hf_hub_download(repo, "config.json", endpoint=endpoint) == path
    error = raises(LocalEntryNotFoundError, hf_hub_download, repo, "shard-0.safetensors", endpoint=endpoint)
    says(error, "did not answer", "HF_ENDPOINT")


@check
def offline_mode_is_told_apart_from_a_dead_network():
    files = fresh()
    repo = new_repo("offline", files)
    constants.HF_HUB_OFFLINE = True
    try:
        says(raises(OfflineModeIsEnabled, api.model_info, repo), "Offline mode is on", "HF_HUB_OFFLINE")
        error = raises(LocalEntryNotFoundError, hf_hub_download, repo, "config.json")
        says(error, "cache")
    finally:
        constants.HF_HUB_OFFLINE = False


if __name__ == "__main__":
    main()
