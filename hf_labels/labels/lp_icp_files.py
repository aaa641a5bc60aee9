"""Keeping a `LabelPowersetICP`: two files beside those of its model, a Hub repository, columns of a data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.labels.lp_icp_prediction import LabelSetPrediction

CONFIG_FILE, SCORES_FILE = "lp_icp.json", "lp_icp.safetensors"
_FORMAT = 1
_NOT_THERE = (
    f"{{}} holds no {CONFIG_FILE} and {SCORES_FILE}: nothing was calibrated for this model. Call `calibrate`, then "
    "`save_pretrained` into its folder."
)


def save_icp(icp: LabelPowersetICP, folder: str | Path) -> Path:
    """Write settings (JSON) and calibration scores (float64, safetensors) into a folder. Returns it.

    The names of the files are their own: in the output folder of a `Trainer` they are pushed with its model.

    Raises:
        RuntimeError: Before calibration.
    """
    from safetensors.numpy import save_file

    from hf_labels._version import __version__

    scores = icp.scores
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    facts = {
        "format": _FORMAT,
        "d": icp.d,
        "num_labels": icp.num_labels,
        "id2label": None if icp.names is None else dict(enumerate(icp.names)),
        "q": icp.num_calibration,
        "from_logits": icp.from_logits,
        "max_sets": icp.max_sets,
        "hf_labels_version": __version__,
    }
    save_file({"calibration_scores": scores}, place / SCORES_FILE)
    (place / CONFIG_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return place


def _download(name: str, revision: str | None, token: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        for file in (SCORES_FILE, CONFIG_FILE):
            path = hf_hub_download(name, file, revision=revision, token=token)
    except EntryNotFoundError as error:
        raise FileNotFoundError(_NOT_THERE.format(name)) from error
    return Path(path).parent


def load_icp(name: str | Path, *, revision: str | None = None, token: Any = None) -> LabelPowersetICP:
    """Read what [`save_icp`] wrote, from a folder or a model repository of the Hub.

    Raises:
        FileNotFoundError: If the folder has no such files.
        ValueError: If the files do not belong together, or are of a later format.
    """
    from safetensors.numpy import load_file

    place = Path(name)
    if not place.is_dir():
        place = _download(str(name), revision, token)
    if not (place / CONFIG_FILE).is_file() or not (place / SCORES_FILE).is_file():
        raise FileNotFoundError(_NOT_THERE.format(name))
    facts = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8"))
    if facts["format"] > _FORMAT:
        raise ValueError(f"{CONFIG_FILE} has format {facts['format']}, this version reads {_FORMAT}: update.")
    scores = load_file(place / SCORES_FILE)["calibration_scores"]
    if len(scores) != facts["q"]:
        raise ValueError(f"{SCORES_FILE} has {len(scores)} scores, {CONFIG_FILE} says {facts['q']}: one was replaced.")
    names = facts["id2label"]
    return LabelPowersetICP.from_scores(
        scores,
        facts["num_labels"],
        d=facts["d"],
        names=None if names is None else [names[str(i)] for i in range(len(names))],
        max_sets=facts["max_sets"],
        from_logits=facts["from_logits"],
    )


def push_icp(
    icp: LabelPowersetICP,
    repo_id: str,
    *,
    base_model: str | None = None,
    plots: Sequence[Any] = (),
    results: Sequence[Any] = (),
    private: bool | None = None,
    token: Any = None,
) -> Any:
    """Add the two files to a model's repository, in one commit. A repository without a card gets one.

    Args:
        icp ([`LabelPowersetICP`]): Calibrated.
        repo_id (`str`): The model's repository, or a new one.
        base_model (`str`, *optional*): The classifier, when it lies elsewhere.
        plots (*optional*): Pictures for the new card, as in [`~hf_labels.hub_cards.render_card`].
        results (sequence of `ResultRow`, *optional*): Measured numbers for the new card.
        private, token (*optional*): As in `huggingface_hub`.

    Returns:
        `CommitInfo`
    """
    import tempfile

    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_icp(icp, folder)
        if not api.file_exists(repo_id, "README.md"):
            write_card(icp, folder, repo_id, base_model=base_model, plots=plots, results=results)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="Upload conformal calibration of label sets"
        )


def write_card(
    icp: LabelPowersetICP,
    folder: str | Path,
    model_id: str,
    *,
    base_model: str | None = None,
    plots: Sequence[Any] = (),
    results: Sequence[Any] = (),
    pipeline_tag: str | None = None,
) -> Path:
    """Write the card of a calibrated classifier into a folder; a card of somebody else stays as it is."""
    from hf_labels.hub_cards import render_card, save_card

    least = int(np.ceil(1 / (icp.num_calibration + 1) * 1e6)) / 1e6
    card = render_card(
        "lp_icp",
        model_id=model_id,
        base_model=base_model,
        labels=list(icp.names) if icp.names else None,
        results=results,
        plots=plots,
        pipeline_tag=pipeline_tag,
        label_assumptions="New rows come from where the calibration rows came from.",
        extra={
            "calibration rows": icp.num_calibration,
            "labels": icp.num_labels,
            "power d": icp.d,
            "smallest significance with a use": least,
        },
    )
    return save_card(card, folder, plots)


def annotate(dataset: Any, answers: Sequence[LabelSetPrediction], max_sets: int = 20) -> Any:
    """A copy of the data set with what was predicted: `label_sets` (best first, at most `max_sets`), `set_size`
    (decimal text, which holds 2^L), `required` and `uncertain` labels, `forced` (the best label set), `credibility`
    and `confidence`.

    Args:
        dataset (`datasets.Dataset`): The rows that were predicted, in their order.
        answers (list of [`LabelSetPrediction`]): From `LabelPowersetICP.predict`.
        max_sets (`int`, *optional*, defaults to 20)

    Raises:
        ValueError: If there are more or fewer answers than rows.
    """
    from datasets import List, Value

    from hf_labels.labels.columns import write_column

    if len(dataset) != len(answers):
        raise ValueError(f"The data set has {len(dataset)} rows, there are {len(answers)} predictions.")
    label = Value("string") if answers and answers[0].icp.names else Value("int64")
    columns = {
        "label_sets": ([answer.label_sets(max_sets) for answer in answers], List(List(label))),
        "set_size": ([str(answer.size) for answer in answers], Value("string")),
        "required": ([answer.required for answer in answers], List(label)),
        "uncertain": ([answer.uncertain for answer in answers], List(label)),
        "forced": ([answer.forced for answer in answers], List(label)),
        "credibility": ([answer.credibility for answer in answers], Value("float64")),
        "confidence": ([answer.confidence for answer in answers], Value("float64")),
    }
    for name, (values, feature) in columns.items():
        dataset = write_column(dataset, name, values, feature)
    return dataset
