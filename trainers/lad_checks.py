"""What segmentation data must be, checked once before training."""

from typing import Any

import numpy as np

_ROWS = 256  # read at a time


def check_segmentation_data(
    dataset: Any, num_labels: int, ignore_index: int, channels: tuple[int, ...], name: str = "train_dataset"
) -> None:
    """Check `labels` of all rows, and the size of the first image. Lazy transforms are checked batch by batch instead.

    Args:
        dataset: A `datasets.Dataset` with `pixel_values` (C, H, W) and `labels` (H, W); others are left alone.
        num_labels (`int`): C.
        ignore_index (`int`): Label that does not count.
        channels (`tuple[int, ...]`): Channels that images may have.
        name (`str`, *optional*, defaults to `"train_dataset"`): For the messages.

    Raises:
        ValueError: One class, floats, maps that are not (H, W) or of another size than the image, unknown ids, or
            images with other channels; row named.
    """
    if num_labels < 2:
        raise ValueError(f"The model has {num_labels} class: cross-entropy needs at least 2 (background is one).")
    columns = getattr(dataset, "column_names", None)
    if columns is None or not len(dataset) or not {"pixel_values", "labels"} <= set(columns):
        return  # said elsewhere, with its name
    if getattr(dataset, "format", {}).get("type") == "custom":
        return
    image = np.asarray(dataset.with_format("numpy")[0]["pixel_values"])
    if image.ndim != 3 or image.shape[0] not in channels:
        wanted = " or ".join(map(str, channels))
        raise ValueError(
            f"`pixel_values` of `{name}` must have shape ({wanted}, H, W), got {image.shape} at row 0. A LAD teacher "
            "reads one channel more than the images have: call `add_input_channel(model)` first."
        )
    maps = dataset.select_columns(["labels"]).with_format("numpy")
    for start in range(0, len(maps), _ROWS):
        for place, row in enumerate(maps[start : start + _ROWS]["labels"]):
            _check_map(np.asarray(row), start + place, image.shape[1:], num_labels, ignore_index, name)


def _check_map(labels: Any, row: int, size: Any, num_labels: int, ignore_index: int, name: str) -> None:
    where = f"`labels` of `{name}`"
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"{where} must be integer class ids, got {labels.dtype} at row {row}. Convert the masks first."
        )
    if labels.shape != tuple(size):
        raise ValueError(
            f"{where} must have the size of the images, {tuple(size)}, got {labels.shape} at row {row}. Resize masks "
            "with nearest-neighbour interpolation."
        )
    bad = ((labels < 0) | (labels >= num_labels)) & (labels != ignore_index)
    if bad.any():
        raise ValueError(
            f"{where} must be in [0, {num_labels}) or {ignore_index} (ignore), got {labels[bad][0]} at row {row}. "
            "Check `num_labels` and `do_reduce_labels`."
        )
