"""Images inside messages: a PIL image, a path, bytes or a URL."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import ImageError

_URLS = ("http://", "https://", "data:")


def is_url(image: Any) -> bool:
    """True for a string that begins with `http://`, `https://` or `data:`."""
    return isinstance(image, str) and image.startswith(_URLS)


def check_image(image: Any) -> None:
    """Refuse what is neither a PIL image, a path, bytes nor a URL.

    Raises:
        TypeError: Names the type.
    """
    if isinstance(image, str | os.PathLike | bytes) or (hasattr(image, "tobytes") and hasattr(image, "mode")):
        return
    raise TypeError(f"An image part must be a PIL image, a path, bytes or a URL, got {type(image).__name__}.")


@lru_cache(maxsize=65536)
def _file_hash(path: str, modified: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_hash(image: Any) -> str:
    """SHA-256 of an image's bytes, for cache keys.

    Files are hashed once per (path, modification time, size). A PIL image is hashed by mode, size and pixels. A URL is
    not fetched: its text is hashed.

    Raises:
        ImageError: If the path cannot be read.
    """
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if is_url(image):
        return "url:" + hashlib.sha256(image.encode()).hexdigest()
    if isinstance(image, str | os.PathLike):
        path = os.path.abspath(os.fspath(image))
        try:
            status = os.stat(path)
            return _file_hash(path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            raise _unreadable(error) from error
    pixels = hashlib.sha256(f"{image.mode} {image.size[0]}x{image.size[1]} ".encode())
    pixels.update(image.tobytes())
    return "pil:" + pixels.hexdigest()


def load_image(image: Any) -> Any:
    """A PIL image in RGB. An `http` URL is fetched by transformers, which honours the machine's proxy settings.

    Raises:
        ImageError: If the path does not exist, or the bytes are no readable image.
    """
    from PIL import Image

    try:
        if isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
        elif is_url(image):
            if image.startswith("data:"):
                image = Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2])))
            else:
                from transformers.image_utils import load_image as fetch

                image = fetch(image)
        elif isinstance(image, str | os.PathLike):
            image = Image.open(image)
        return image.convert("RGB")
    except (OSError, ValueError) as error:  # PIL's UnidentifiedImageError is an OSError
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ImageError:
    return ImageError(f"an image part cannot be read: {error}.")


def image_url(image: Any) -> str:
    """What an OpenAI-compatible server takes: the URL itself, or the image as a `data:` URL.

    Raises:
        ImageError: If the path cannot be read.
    """
    if is_url(image):
        return image
    if isinstance(image, bytes):
        data = image
    elif isinstance(image, str | os.PathLike):
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise _unreadable(error) from error
    else:
        data = png_bytes(image)
    return f"data:{_mime(data)};base64,{base64.b64encode(data).decode()}"


def png_bytes(image: Any) -> bytes:
    """A PIL image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _mime(data: bytes) -> str:
    if data.startswith(b"\x89PNG"):
        return "image/png"
    if data.startswith(b"GIF8"):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/jpeg"


def image_to_json(image: Any) -> Any:
    """An image as a JSON value: text for paths and URLs, else `{"base64": ...}` (PIL images as PNG)."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    pil = not isinstance(image, bytes)
    data = png_bytes(image) if pil else image
    return {"base64": base64.b64encode(data).decode(), "pil": pil}


def image_from_json(value: Any) -> Any:
    """Inverse of [`image_to_json`]."""
    if not isinstance(value, dict):
        return value
    data = base64.b64decode(value["base64"])
    if not value.get("pil"):
        return data
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    image.load()
    return image
