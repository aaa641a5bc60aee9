"""Frozen features of the inputs, by the best encoder that is there."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from hf_labels.doctor.reading import Patient

logger = logging.getLogger(__name__)

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


def features_of(patient: Patient, data: Any, encoder: Any = None) -> tuple[np.ndarray | None, str]:
    """Unit features `(N, d)`, float32, and what made them; None without an input.

    Args:
        patient, data: Whose rows.
        encoder (*optional*): As in [`~hf_labels.data.encoders.make_encoder`] for texts; `"tfidf"` for none. By default
            MiniLM from its package or the Hub, and where neither can be had, TF-IDF. Images become thumbnails unless a
            function from images to vectors is given.
    """
    if patient.text is not None:
        texts = ["" if cell is None else str(cell) for cell in data[patient.text][:]]
        return _of_texts(texts, encoder)
    if patient.image is not None:
        return _of_images(data, patient.image, encoder)
    return None, ""


def _of_texts(texts: list[str], encoder: Any) -> tuple[np.ndarray, str]:
    from hf_labels.data.encoders import make_encoder
    from hf_labels.data.features import FeatureCache
    from hf_labels.data.offline import MINILM, minilm_path

    name = encoder
    if encoder is None:
        try:
            minilm_path()
            encoder, name = MINILM, "MiniLM"
        except ImportError:
            encoder, name = ENCODER, "MiniLM"
    if not isinstance(encoder, str) or encoder != "tfidf":
        try:
            frozen = make_encoder(encoder, None)
            found = FeatureCache(frozen.key()).get(texts, frozen.encode, desc="Features")["features"]
            return _unit(np.asarray(found, dtype=np.float32)), str(name)
        except OSError as error:
            if name != "MiniLM":
                raise
            logger.warning("MiniLM cannot be had (%s): TF-IDF is used. Name another with --encoder.", error)
    return _tfidf(texts), "TF-IDF"


def _tfidf(texts: list[str]) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(sublinear_tf=True, max_features=20_000).fit_transform(texts)
    except ValueError:  # no word at all
        return np.zeros((len(texts), 1), np.float32)
    size = min(128, min(table.shape) - 1)
    dense = TruncatedSVD(size, random_state=0).fit_transform(table) if size >= 2 else table.toarray()
    return _unit(np.asarray(dense, dtype=np.float32))


def _of_images(data: Any, column: str, encoder: Any) -> tuple[np.ndarray, str]:
    if callable(encoder):
        found = [np.asarray(encoder([row[column] for row in part])) for part in _batches(data)]
        return _unit(np.concatenate(found).astype(np.float32)), getattr(encoder, "__name__", "given function")
    rows = [
        np.asarray(row[column].convert("RGB").resize((16, 16)), dtype=np.float32).ravel()
        for part in _batches(data)
        for row in part
    ]
    table = np.stack(rows) / 255
    return _unit(table - table.mean(0)), "thumbnails of 16 x 16 pixels"


def _batches(data: Any, size: int = 256) -> Any:
    for start in range(0, len(data), size):
        part = data.select(range(start, min(start + size, len(data))))
        yield [part[i] for i in range(len(part))]


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
