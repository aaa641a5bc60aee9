"""Which failures deserve another try, and how long to wait before it."""

from __future__ import annotations

import datetime
import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import MalformedAnswer, RateLimit

logger = logging.getLogger(__name__)

RETRY_STATUS = frozenset({408, 409, 425, 429})
RETRY_AFTER_MAX_S = 600.0


def is_retryable(error: BaseException) -> bool:
    """True for a timeout, a broken connection, HTTP 408, 409, 425, 429 and 5xx, a rate limit and an unreadable answer.

    False for everything else, HTTP 400, 401, 403, 404 and 422 and the Hub's offline mode among them.
    """
    if isinstance(error, RateLimit | MalformedAnswer):
        return True
    status = status_of(error)
    if status is not None:
        return status in RETRY_STATUS or 500 <= status <= 599
    if type(error).__name__ == "OfflineModeIsEnabled":
        return False
    return isinstance(error, TimeoutError | ConnectionError) or _is_transport_error(error)


def status_of(error: BaseException) -> int | None:
    """HTTP status of an error that carries a response."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _is_transport_error(error: BaseException) -> bool:
    """The HTTP client's own errors of reading, writing and connecting; huggingface_hub says which client it uses."""
    import sys

    errors = sys.modules.get("huggingface_hub.errors")
    base = getattr(errors, "HTTPError", None)
    lasting = ("InvalidURL", "TooManyRedirects", "UnsupportedProtocol")
    return base is not None and isinstance(error, base) and type(error).__name__ not in lasting


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait: of a [`RateLimit`], or the header `Retry-After` (seconds or a date)."""
    if isinstance(error, RateLimit):
        return error.retry_after
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


@dataclass
class Retry:
    """Try again after `min(backoff_max, backoff * 2**k) * U(0.5, 1)` seconds, or after what `Retry-After` says.

    Parameters:
        max_retries (`int`): Tries after the first one.
        backoff (`float`), backoff_max (`float`): Seconds.
        sleep (`Callable[[float], None]`, *optional*): For tests.
        rng (`random.Random`, *optional*): For the jitter.
    """

    max_retries: int = 4
    backoff: float = 1.0
    backoff_max: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.max_retries < 0 or self.backoff < 0 or self.backoff_max < 0:
            raise ValueError(
                "`max_retries`, `backoff` and `backoff_max` must not be negative, got "
                f"{self.max_retries}, {self.backoff} and {self.backoff_max}."
            )

    def call(self, action: Callable[[], Any], stop: threading.Event | None = None) -> Any:
        """The action's result.

        Raises:
            Exception: Of the last try. At once if it is not worth another try, if the server asks to wait longer than
                ten minutes, or once `stop` is set (which also ends a wait).
        """
        for attempt in range(self.max_retries + 1):
            try:
                return action()
            except Exception as error:
                if attempt == self.max_retries or not is_retryable(error) or (stop is not None and stop.is_set()):
                    raise
                wait = retry_after(error)
                if wait is None:
                    wait = min(self.backoff_max, self.backoff * 2**attempt) * self.rng.uniform(0.5, 1.0)
                elif wait > RETRY_AFTER_MAX_S:
                    logger.warning("The server asks to wait %.0f s, which is too long: giving up.", wait)
                    raise
                logger.info("Try %d failed (%s); next in %.1f s.", attempt + 1, error, wait)
                if stop is None or self.sleep is not time.sleep:
                    self.sleep(wait)
                elif stop.wait(wait):
                    raise
        raise AssertionError("unreachable")
