"""One sentence on what went wrong with the Hub, and one on the repair.

The client's errors carry a request id, a URL and advice for every case at once, and `transformers` and `datasets` wrap
them again. A command line needs the cause and the next step. The client is imported only when an error is explained.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Trainer as _TrainerMethods
else:
    _TrainerMethods = object

logger = logging.getLogger(__name__)

_CONSISTENCY = re.compile(r"file should be of size (\d+) but has size (\d+) \((?:\(…\))?(.+)\)\.")
_BROKEN_OFF = ("RemoteProtocolError", "ReadError", "WriteError", "ConnectionResetError", "BrokenPipeError")
_UPLOAD_ROUTES = re.compile(r"/(preupload|commit|info/lfs|repos/create|lfs)(/|$)")
_RESOLVE = re.compile(r"/resolve/([^/]+)/([^?]+)")


def explain_hub_error(error: BaseException) -> str | None:
    """Say in plain words why a download or an upload failed, and what to do.

    The whole chain of causes is searched, so errors that `transformers` or `datasets` have wrapped are found too. The
    text never holds a token or the query of a signed address.

    Args:
        error (`BaseException`): What the client, `from_pretrained`, `load_dataset` or `push_to_hub` raised.

    Returns:
        `str` or `None`: The cause and the repair; `None` when no error in the chain comes from talking to the Hub.

    Example:

    ```python
    try:
        trainer.push_to_hub()
    except Exception as error:
        print(explain_hub_error(error) or error)
    ```
    """
    chain = list(_chain(error))
    for explain in (_from_type, _from_status, _from_transfer, _from_unreachable):
        for link in chain:
            text = explain(link)
            if text is not None:
                return text
    return None


def commit_of(repo_id: str, revision: str | None = None, repo_type: str = "model") -> str | None:
    """The commit that a repository's revision points to now, so that what stands on it can name it.

    `transformers` 5 keeps no commit on a loaded model or config. Resolve first, then load with the result as
    `revision`: model, tokenizer and record then agree, even if the repository moves on in between.

    Args:
        repo_id (`str`): Hub id. A local folder has no commit.
        revision (`str`, *optional*): Branch, tag, pull request or commit; the default branch when left out.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"`, `"dataset"` or `"space"`.

    Returns:
        `str` or `None`: 40 hexadecimal digits; `None` for a local folder, or when the Hub cannot be reached and the
            cache does not know the revision.

    Raises:
        RepositoryNotFoundError: If there is no such repository.
        RevisionNotFoundError: If it has no such revision.
    """
    if Path(repo_id).is_dir():
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionResolutionError

    try:
        return str(HfApi().resolve_revision(repo_id, revision=revision, repo_type=repo_type).resolved)
    except RevisionResolutionError:
        return None


class UnsavedToken(str):
    """A token that works as text and is left out of every pickle.

    `Trainer` pickles its arguments into `training_args.bin` and pushes that file, together with a `hub_token` given in
    the arguments: whoever can read the repository can then write in its owner's name. With
    `args.hub_token = UnsavedToken(args.hub_token)` the file holds `None` in its place.
    """

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> UnsavedToken:
        return self

    def __copy__(self) -> UnsavedToken:
        return self

    def __repr__(self) -> str:
        return "UnsavedToken('***')"


def failed_pushes(jobs: Iterable[Future[Any]]) -> list[str]:
    """Explain the uploads that failed in the background.

    `Trainer` pushes checkpoints in a thread and waits for it, but never asks whether it succeeded: a run whose every
    push failed ends without a word. `trainer.push_in_progress.jobs` holds the futures of the last push.

    Args:
        jobs (iterable of `Future`): Uploads started with `run_as_future=True`. Unfinished and cancelled ones are
            left out.

    Returns:
        `list[str]`: One text per failed upload, in order; empty when none failed.
    """
    finished = [job for job in jobs if job.done() and not job.cancelled()]
    errors = [error for error in (job.exception() for job in finished) if error is not None]
    return [explain_hub_error(error) or f"{type(error).__name__}: {error}" for error in errors]


class SafePush(_TrainerMethods):
    """Mixin for a `Trainer` (named before it in the bases): pushes that keep secrets and do not fail in silence.

    - A `hub_token` in the arguments stays out of `training_args.bin` ([`UnsavedToken`]).
    - Uploads of checkpoints that failed in the background are logged as errors, each once, with cause and repair.
    - An error of `push_to_hub` carries the explanation as a note, and keeps its type.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.hub_token and not isinstance(self.args.hub_token, UnsavedToken):
            self.args.hub_token = UnsavedToken(self.args.hub_token)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.push_to_hub`."""
        try:
            return super().push_to_hub(*args, **kwargs)
        except Exception as error:
            text = explain_hub_error(error)
            if text is not None:
                error.add_note(text)
            raise

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self._log_failed_pushes()
        before: Any = self.push_in_progress
        super()._push_from_checkpoint(checkpoint_folder)
        current: Any = self.push_in_progress
        if before is not None and current is not before:  # it ended meanwhile and would be forgotten
            current.jobs[:0] = before.jobs

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        self._log_failed_pushes()

    def _log_failed_pushes(self) -> None:
        current = getattr(self, "push_in_progress", None)
        if current is None:
            return
        done = [job for job in current.jobs if job.done()]
        current.jobs = [job for job in current.jobs if job not in done]
        for text in failed_pushes(done):
            logger.error("A checkpoint was not pushed to the Hub. %s It is still in the output folder.", text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, outermost first.

    What was merely being handled when the error came (`__context__`) counts only for an `OSError`: a mistake in a
    config that shows itself after the client looked in vain for an optional file is not the Hub's doing.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        implied = isinstance(link, OSError) and not link.__suppress_context__
        link = link.__cause__ or (link.__context__ if implied else None)


def _from_type(error: BaseException) -> str | None:
    """Errors whose class says what happened."""
    from huggingface_hub import errors

    name = _repo_name(error)
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "No access token was found. Log in with `hf auth login`, or set the environment variable HF_TOKEN."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "Offline mode is on and the files are not in the cache. Unset HF_HUB_OFFLINE, or pass a local folder."
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is gated and this account is not on its list. Open its page on the Hub, accept the conditions, "
            "and use a token of the account that was accepted (`hf auth login`)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name} was not found: it does not exist, or it is private and the token cannot see it. Check the "
            "spelling (`owner/name`) and whether it is a model, a data set or a Space; for a private one run "
            "`hf auth login`."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no such revision. Pass an existing branch, tag or commit as `revision`, or leave it out."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        match = _RESOLVE.search(str(error.response.url))
        file = (
            f"the file `{match.group(2)}` at revision `{match.group(1)}`" if match else "the file that was asked for"
        )
        return f"{name} exists but does not hold {file}. Look at its file list on the Hub, or pass another `revision`."
    if isinstance(error, errors.DisabledRepoError):
        return f"{name} was disabled on the Hub and cannot be used. Choose another one."
    if isinstance(error, errors.HFValidationError):
        return f"This is not a valid repository id: {_first_line(error)}"
    if type(error).__name__ == "DatasetNotFoundError":
        said = _first_line(error).rstrip(".")
        return f"{said}. Check the spelling (`owner/name`), pass a local file, or log in with `hf auth login`."
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata in README.md"):
        detail = " ".join(str(error).split("\n")[1:])
        return (
            f"The metadata of the card was refused and nothing was uploaded: {detail} Correct the block between the "
            "two lines `---` of README.md."
        )
    return None


def _from_status(error: BaseException) -> str | None:
    """Other refusals of the Hub, by HTTP status."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return None
    status = error.response.status_code
    said = _first_line(error.server_message or "").rstrip(".")
    path = str(error.response.url).split("?")[0]
    upload = bool(_UPLOAD_ROUTES.search(path))
    what = "the upload" if upload else "the request"
    whole = " Nothing was committed and the local files are whole." if upload else ""
    if status == 401:
        return "The access token is missing, wrong or expired. Run `hf auth login`, or correct HF_TOKEN." + whole
    if status == 403:
        reason = f" ({said})" if said else ""
        return (
            f"The token has no permission for {what}{reason}. Use a token with the write role, and a repository under "
            f"your own name or an organisation you may write to.{whole}"
        )
    if status == 409:
        return (
            f"The Hub reports a conflict: {said or 'it exists already'}. Choose another name, or pass `exist_ok=True`."
        )
    if status == 412:
        return (
            "Somebody else committed to this repository in the meantime. Look at its history, then push again." + whole
        )
    if status == 413:
        return f"The Hub refused {what} as too large. Push fewer files in one commit.{whole}"
    if status == 429:
        return f"Too many requests: the Hub asks to wait. Try again in a few minutes.{whole}"
    if status >= 500:
        return f"The Hub failed with error {status} during {what}. Run the same command again in a while.{whole}"
    return f"The Hub refused {what} with error {status}{': ' + said if said else ''}.{whole}"


def _from_transfer(error: BaseException) -> str | None:
    """Downloads that arrived damaged."""
    match = _CONSISTENCY.search(str(error)) if isinstance(error, OSError) else None
    if match:
        expected, got, file = match.groups()
        return (
            f"The download of `{file}` was cut off ({got} of {expected} bytes). Nothing damaged was kept: run the "
            "same command again."
        )
    if type(error).__name__ == "SafetensorError":
        return (
            f"A weights file is damaged ({_first_line(error)}). Download it again with `force_download=True`; "
            "`hf cache verify` lists the files that differ from the Hub."
        )
    return None


def _from_unreachable(error: BaseException) -> str | None:
    """No answer at all."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    from_http = type(error).__module__.split(".")[0].startswith("httpx") or isinstance(error, ConnectionError)
    if from_http and type(error).__name__ in _BROKEN_OFF:
        return "The connection to the Hub broke off in the middle of a transfer. Run the same command again."
    if isinstance(error, LocalEntryNotFoundError) or from_http:
        return (
            "The Hub did not answer and the files are not in the local cache. Check the network, the proxy and "
            "HF_ENDPOINT, or pass a local folder."
        )
    return None


def _repo_name(error: BaseException) -> str:
    kind = {"dataset": "The data set", "space": "The Space", "model": "The model"}.get(
        getattr(error, "repo_type", None) or "", "The repository"
    )
    repo_id = getattr(error, "repo_id", None)
    return f"{kind} `{repo_id}`" if repo_id else kind


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else ""
