"""The sentence for each error of the client, without a server: the real libraries raise the errors."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import httpx2
import pytest
import torch
from huggingface_hub import errors
from huggingface_hub.utils import hf_raise_for_status, validate_repo_id
from safetensors import SafetensorError

from hf_labels.hub import SafePush, UnsavedToken, explain_hub_error, failed_pushes

HUB = "https://huggingface.co"
MODEL = f"{HUB}/api/models/org/name"


def refused(status, url=MODEL, method="GET", code=None, message=None, body=None):
    """The exception that the client itself makes of such an answer."""
    headers = {"X-Request-Id": "id-1"} | ({"X-Error-Code": code} if code else {})
    headers |= {"X-Error-Message": message} if message else {}
    request = httpx2.Request(method, url, headers={"Authorization": "Bearer hf_secret"})
    response = httpx2.Response(status, headers=headers, json=body or {}, request=request)
    with pytest.raises(errors.HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


COMMIT = {"url": f"{MODEL}/commit/main", "method": "POST"}
CASES = {
    "missing": (refused(404, code="RepoNotFound"), ["model `org/name` was not found", "hf auth login"]),
    "missing data set": (refused(404, f"{HUB}/api/datasets/a/b", code="RepoNotFound"), ["data set `a/b`"]),
    "missing in download": (refused(404, f"{HUB}/a/b/resolve/main/x", code="RepoNotFound"), ["model `a/b`"]),
    "gated": (refused(403, code="GatedRepo"), ["`org/name` is gated", "accept the conditions"]),
    "disabled": (refused(403, message="Access to this resource is disabled."), ["disabled"]),
    "revision": (refused(404, f"{MODEL}/revision/v9", code="RevisionNotFound"), ["no such revision"]),
    "file": (refused(404, f"{HUB}/a/b/resolve/v1/x/y.json", code="EntryNotFound"), ["`x/y.json`", "`v1`"]),
    "wrong token": (refused(401, message="Invalid credentials in Authorization header"), ["wrong or expired"]),
    "no rights": (refused(403, message="You need the write role", **COMMIT), ["no permission", "write role", "whole"]),
    "exists": (refused(409, f"{HUB}/api/repos/create", "POST", message="You already created this repo"), ["conflict"]),
    "raced": (refused(412, **COMMIT), ["Somebody else committed", "Nothing was committed"]),
    "too large": (refused(413, **COMMIT), ["too large", "Nothing was committed"]),
    "limited": (refused(429), ["Too many requests"]),
    "failed upload": (refused(503, f"{HUB}/lfs/abc?sig=hf_secret", "PUT"), ["error 503", "the upload", "whole"]),
    "failed request": (refused(500), ["error 500", "the request"]),
    "refused": (refused(400, body={"error": "bad thing"}, **COMMIT), ["error 400: bad thing", "Nothing was"]),
    "token": (errors.LocalTokenNotFoundError("x"), ["No access token", "HF_TOKEN"]),
    "offline": (errors.OfflineModeIsEnabled("x"), ["Offline mode is on"]),
    "cache": (errors.LocalEntryNotFoundError("x"), ["did not answer", "HF_ENDPOINT"]),
    "dead": (httpx2.ConnectError("refused"), ["did not answer"]),
    "late": (httpx2.ReadTimeout("late"), ["did not answer"]),
    "broken off": (httpx2.RemoteProtocolError("closed"), ["broke off"]),
    "card": (
        ValueError('Invalid metadata in README.md.\n- "license" must be one of'),
        ["card was refused", '"license"'],
    ),
    "weights": (SafetensorError("Error while deserializing header"), ["damaged", "force_download=True"]),
    "short": (
        OSError("Consistency check failed: file should be of size 9 but has size 4 ((…)el.safetensors).\nUsually"),
        ["`el.safetensors`", "4 of 9 bytes"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cause_and_repair_are_named_without_secrets(name):
    error, words = CASES[name]
    text = explain_hub_error(error)
    assert text is not None and [word for word in words if word not in text] == []
    assert "hf_secret" not in text and "\n" not in text and text.endswith(".")


def test_bad_repo_id_is_explained():
    with pytest.raises(errors.HFValidationError) as caught:
        validate_repo_id("a/b/c")
    assert "not a valid repository id" in explain_hub_error(caught.value)


def test_cause_is_found_below_wrapping_errors():
    try:
        try:
            raise refused(404, code="RepoNotFound")
        except OSError as inner:
            raise OSError("org/name is not a local folder") from inner
    except OSError as wrapped:
        outer = RuntimeError("Error while uploading")
        outer.__cause__ = wrapped
    assert "`org/name` was not found" in explain_hub_error(outer)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("x"), OSError("disk full"), KeyboardInterrupt()])
def test_other_errors_are_left_alone(error):
    assert explain_hub_error(error) is None


def test_mistake_made_while_a_hub_error_was_handled_is_not_blamed_on_the_hub():
    try:
        try:
            raise refused(404, code="RepoNotFound")
        except OSError:
            raise TypeError("hidden_size must be an int")  # noqa: B904
    except TypeError as error:
        assert explain_hub_error(error) is None


def test_cycle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert explain_hub_error(first) is None


def test_failed_pushes_lists_only_what_failed():
    jobs = [Future() for _ in range(5)]
    jobs[0].set_result("fine")
    jobs[1].set_exception(refused(500, **COMMIT))
    jobs[2].set_exception(ZeroDivisionError("odd"))
    jobs[3].cancel()
    texts = failed_pushes(jobs)
    assert len(texts) == 2 and "error 500" in texts[0] and texts[1] == "ZeroDivisionError: odd"


def test_unsaved_token_works_and_is_in_no_pickle(tmp_path):
    token = UnsavedToken("hf_secret")
    assert token == "hf_secret" and f"Bearer {token}" == "Bearer hf_secret" and "hf_secret" not in repr(token)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps({"hub_token": token}, protocol=protocol)
        assert b"hf_secret" not in data and pickle.loads(data) == {"hub_token": None}
    torch.save({"hub_token": token}, tmp_path / "args.bin")
    assert b"hf_secret" not in (tmp_path / "args.bin").read_bytes()
    assert copy.deepcopy(token) == copy.copy(token) == "hf_secret"


class PushingBase:
    """The part of `Trainer` that the mixin stands on. The running push ends just before the next one replaces it."""

    def __init__(self, hub_token=None):
        self.args = SimpleNamespace(hub_token=hub_token)
        self.push_in_progress = None

    def _push_from_checkpoint(self, folder):
        if self.push_in_progress is not None:
            for job in self.push_in_progress.jobs:
                job.set_exception(refused(500, **COMMIT))
        self.push_in_progress = SimpleNamespace(jobs=[Future()])

    def _finish_current_push(self):
        pass


class Pushing(SafePush, PushingBase):
    pass


def test_push_that_fails_in_the_moment_of_the_next_is_logged_once(caplog):
    run = Pushing()
    run._finish_current_push()
    run._push_from_checkpoint("checkpoint-1")
    run._push_from_checkpoint("checkpoint-2")
    assert caplog.messages == []
    run._finish_current_push()
    run._finish_current_push()
    assert len(caplog.messages) == 1 and "error 500" in caplog.messages[0]
    run.push_in_progress.jobs[0].set_result("fine")
    run._finish_current_push()
    assert len(caplog.messages) == 1 and run.push_in_progress.jobs == []


def test_mixin_hides_the_token_of_the_arguments():
    assert Pushing().args.hub_token is None
    token = Pushing("hf_secret").args.hub_token
    assert token == "hf_secret" and pickle.loads(pickle.dumps(token)) is None


def test_module_loads_without_the_client():
    heavy = ("torch", "transformers", "huggingface_hub")
    code = f"import sys, hf_labels.hub; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
