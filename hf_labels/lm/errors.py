"""What can go wrong when a language model is asked."""

from __future__ import annotations

from typing import Any


class UnsupportedCapability(TypeError):
    """The backend cannot do what is asked. Raised before any call is made."""


class LMError(RuntimeError):
    """A call to a language model failed."""


class RateLimit(LMError):
    """The model asks to slow down; worth another try.

    Parameters:
        message (`str`): What the server said.
        retry_after (`float`, *optional*): Seconds that the server asks to wait.
    """

    def __init__(self, message: str = "Too many requests.", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MalformedAnswer(LMError):
    """The server's answer cannot be read (not JSON, or without the promised parts); worth another try."""


class ItemError(ValueError):
    """One request of several cannot be answered; says which.

    Parameters:
        item (`int`): Position of the request, from 0.
        reason (`str`): What is wrong, with the repair.
    """

    def __init__(self, item: int, reason: str) -> None:
        super().__init__(f"Request {item}: {reason}")
        self.item = item
        self.reason = reason

    def at(self, item: int) -> ItemError:
        """The same error for another position."""
        return type(self)(item, self.reason)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.item, self.reason)


class ImageError(ValueError):
    """An image part cannot be read; says which."""


class BudgetExceeded(RuntimeError):
    """The budget is used up. What was answered until then is kept.

    Parameters:
        message (`str`): Which limit was reached.
        partial (`Any`, *optional*): The results so far, in the shape that the interrupted function returns: a list
            with `None` where nothing was answered, or [`LabelScores`] with rows of NaN.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.partial)
