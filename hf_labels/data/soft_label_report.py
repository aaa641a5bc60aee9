"""What soft labels cost in bytes, measured from the files, and the card of a store on the Hub."""

from pathlib import Path
from typing import Any

from hf_labels.data.soft_label_info import KEY_COLUMNS, LABEL_COLUMNS, SIDE_CAR, VIEW_COLUMNS

_MEANING = {
    "example_id": "Key of the example in its own data set.",
    "view": "Number of the view of that example.",
    "label": "True class of the example; -1 where it is not known.",
    "crop": "Top, left, height, width of the view, as fractions of the image.",
    "flip": "Whether the view was mirrored after the crop.",
    "mix_index": "Row that was mixed into the view; -1 for none.",
    "mix_lam": "Share of the view itself in the mixture.",
    "mix_box": "Box of the mixture: y0, y1, x0, x1 in pixels.",
    "topk_ids": "Classes with the highest scores, highest first.",
    "topk_values": "Their scores, encoded as the side-car says.",
    "dense_values": "Scores of all classes, encoded as the side-car says.",
    "map_ids": "Classes with the highest scores in each cell of the label map.",
    "map_values": "Their logits.",
}


def label_storage_report(store: Any, projector_path: str | Path | None = None) -> dict[str, Any]:
    """Bytes of a soft-label store, next to dense float16 labels for the same rows.

    Args:
        store ([`SoftLabelStore`]): Not a streamed one.
        projector_path (`str` or `Path`, *optional*): For kind `projector`: folder of the adapter, whose files count.

    Returns:
        `dict`: `kind`, `rows`, `examples`, `num_labels`, `views_per_example`;
        `label_bytes` (ids and values), `view_bytes` (crops, flips, mixing), `key_bytes`: content of the Arrow buffers;
        `bytes_per_label`, `bytes_per_row` (label and view, without keys);
        `file_bytes` (Parquet and side-car on disk; `None` for a store that lies in no folder), `file_bytes_per_row`;
        `dense_float16_bytes` = rows x C x 2, `dense_over_labels`: how many times more that is.

    Raises:
        ValueError: For a streamed store, or a projector without its files.
    """
    info = store.info
    out: dict[str, Any] = {"kind": info.kind, "num_labels": info.num_labels}
    if info.kind == "projector":
        if projector_path is None:
            raise ValueError("Pass `projector_path`: a projector's cost is that of its files.")
        files = [path for path in Path(projector_path).rglob("*") if path.is_file()]
        if not files:
            raise ValueError(f"There are no files in {projector_path}.")
        size = sum(path.stat().st_size for path in files)
        return out | {"rows": 0, "label_bytes": 0, "bytes_per_label": 0.0, "file_bytes": size}
    rows, table = len(store), store.reader
    sizes = {name: sum(chunk.nbytes for chunk in table._columns[name]) for name in table.names}
    if info.id_type == "string":  # object pointers say nothing: count the characters
        sizes["example_id"] = sum(len(str(identity).encode()) + 4 for identity in table.column("example_id"))
    label, view, key = (
        sum(sizes.get(name, 0) for name in names) for names in (LABEL_COLUMNS, VIEW_COLUMNS, KEY_COLUMNS)
    )
    dense = rows * info.num_labels * 2
    out |= {"rows": rows, "examples": len(store.example_ids), "views_per_example": info.views_per_example}
    out |= {"label_bytes": label, "view_bytes": view, "key_bytes": key}
    out |= {"bytes_per_label": label / rows, "bytes_per_row": (label + view) / rows}
    out |= {"dense_float16_bytes": dense, "dense_over_labels": dense / label, "file_bytes": None}
    if store.folder is not None:
        from hf_labels.data.soft_label_writer import data_files

        files = [*data_files(store.folder), store.folder / SIDE_CAR]
        size = sum(path.stat().st_size for path in files)
        out |= {"file_bytes": size, "file_bytes_per_row": size / rows}
    return out


def store_card(store: Any, repo_id: str, **given: Any) -> Any:
    """The data set card of a store; `given` replaces what the store says of itself."""
    from hf_labels.hub_cards import LabelColumn, render_dataset_card

    info = store.info
    names = [info.id2label[number] for number in sorted(info.id2label)] if info.id2label else []
    columns = []
    for name in () if info.kind == "projector" else info.features():
        kind = "hard" if name in ("label", "topk_ids") and info.kind == "hard" else ""
        shown = names if name in ("topk_ids", "dense_values", "map_ids") else ()
        columns.append(LabelColumn(name, kind, _MEANING[name], shown))
    if not columns:
        columns = [LabelColumn(SIDE_CAR, "", "No rows: a model makes the labels; this file names it.")]
    source = (info.source or {}).get("id")
    settings = {
        "kind": info.kind,
        "classes": info.num_labels,
        "stored per row": info.k,
        "residual": info.residual,
        "values": f"{info.value_space}, {info.codec}",
        "temperature": info.temperature,
        "views per example": info.views_per_example,
    }
    texts = {
        "tool": "hf_labels.data.SoftLabelStore",
        "columns": columns,
        "label_assumptions": [
            f"Rows are decoded with {SIDE_CAR}, by `SoftLabelStore.from_pretrained({repo_id!r})`; alone they mean "
            "nothing.",
            "The student's classes are those of the store, in the same order.",
            "Keys are those of the source data set: `example_id` there is `example_id` here.",
        ],
        "limits": "The labels repeat the teacher's errors. What was not stored is spread by the residual rule.",
        "labelled_by": info.teacher,
        "source_datasets": [source] if source else [],
        "num_rows": len(store) or None,
        "settings": {name: value for name, value in settings.items() if value is not None},
    }
    return render_dataset_card(repo_id, **(texts | given))
