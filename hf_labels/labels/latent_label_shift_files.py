"""Keeping a `LatentLabelShift`: two files beside those of its model, a Hub repository, columns of a data set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.labels.latent_label_shift_factors import Identification

CONFIG_FILE, ARRAYS_FILE = "latent_label_shift.json", "latent_label_shift.safetensors"
_FORMAT = 1
_NOT_THERE = f"{{}} holds no {CONFIG_FILE} and {ARRAYS_FILE}: no classes were found for this model. Call `fit` first."
_SETTINGS = ("num_classes", "num_clusters", "solver", "factorization", "check", "restarts", "seed")


def save_lls(lls: LatentLabelShift, folder: str | Path) -> Path:
    """Write settings (JSON) and arrays (W, C, A and more, float64, safetensors) into a folder. Returns it.

    The names of the files are their own: in the output folder of a `Trainer` they are pushed with its model.

    Raises:
        RuntimeError: Before `fit`.
    """
    from safetensors.numpy import save_file

    from hf_labels._version import __version__

    arrays = {
        "class_prior": lls.class_prior,
        "cluster_given_class": lls.cluster_given_class,
        "domain_given_class": lls.domain_given_class,
    }
    for name in ("domain_weights", "cluster_centres"):
        if getattr(lls, name) is not None:
            arrays[name] = getattr(lls, name)
    report = lls.report
    assert report is not None  # there with the arrays
    facts: dict[str, Any] = {"format": _FORMAT, **{name: getattr(lls, name) for name in _SETTINGS}}
    facts |= {
        "num_domains": lls.num_domains,
        "domain_names": lls.domain_names,
        "from_logits": lls.from_logits,
        "report": {
            "singular_values": report.singular_values,
            "noise_level": report.noise_level,
            "rank_p_value": report.rank_p_value if np.isfinite(report.rank_p_value) else None,
            "condition": report.condition if np.isfinite(report.condition) else None,
            "residual": report.residual,
        },
        "hf_labels_version": __version__,
    }
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, place / ARRAYS_FILE)
    (place / CONFIG_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return place


def _download(name: str, revision: str | None, token: Any) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        for file in (ARRAYS_FILE, CONFIG_FILE):
            path = hf_hub_download(name, file, revision=revision, token=token)
    except EntryNotFoundError as error:
        raise FileNotFoundError(_NOT_THERE.format(name)) from error
    return Path(path).parent


def load_lls(name: str | Path, *, revision: str | None = None, token: Any = None) -> LatentLabelShift:
    """Read what [`save_lls`] wrote, from a folder or a model repository of the Hub.

    Raises:
        FileNotFoundError: If the folder has no such files.
        ValueError: If the files do not belong together, or are of a later format.
    """
    from safetensors.numpy import load_file

    place = Path(name)
    if not place.is_dir():
        place = _download(str(name), revision, token)
    if not (place / CONFIG_FILE).is_file() or not (place / ARRAYS_FILE).is_file():
        raise FileNotFoundError(_NOT_THERE.format(name))
    facts = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8"))
    if facts["format"] > _FORMAT:
        raise ValueError(f"{CONFIG_FILE} has format {facts['format']}, this version reads {_FORMAT}: update.")
    arrays = load_file(place / ARRAYS_FILE)
    shape = (facts["num_classes"], facts["num_domains"])
    if arrays["class_prior"].shape != shape:
        raise ValueError(
            f"{ARRAYS_FILE} has mixtures of shape {arrays['class_prior'].shape}, {CONFIG_FILE} says {shape}: one was "
            "replaced."
        )
    settings = {key: facts[key] for key in _SETTINGS}
    lls = LatentLabelShift(settings.pop("num_classes"), settings.pop("num_clusters"), **settings)
    lls.from_logits = facts["from_logits"]
    lls.domain_names = None if facts["domain_names"] is None else tuple(facts["domain_names"])
    lls.domain_weights, lls.cluster_centres = arrays.get("domain_weights"), arrays.get("cluster_centres")
    lls._mixtures, lls._clusters = arrays["class_prior"], arrays["cluster_given_class"]
    found = facts["report"]
    lls.report = Identification(
        lls.num_classes,
        tuple(found["singular_values"]),
        found["noise_level"],
        float("nan") if found["rank_p_value"] is None else found["rank_p_value"],
        float("inf") if found["condition"] is None else found["condition"],
        found["residual"],
    )
    return lls


def card_facts(lls: LatentLabelShift) -> dict[str, Any]:
    """What a card says about a fit."""
    report = lls.report
    assert report is not None
    facts: dict[str, Any] = {"classes": lls.num_classes, "domains": lls.num_domains, "clusters": lls.num_clusters}
    facts["condition number of the mixtures"] = f"{report.condition:.3g}"
    if np.isfinite(report.rank_p_value):
        facts["p value of one class less"] = f"{report.rank_p_value:.2g}"
    return facts


def write_card(
    lls: LatentLabelShift,
    folder: str | Path,
    model_id: str,
    *,
    base_model: str | None = None,
    plots: Sequence[Any] = (),
    results: Sequence[Any] = (),
    pipeline_tag: str | None = None,
    training: Any = None,
) -> Path:
    """Write the card of a classifier of latent classes into a folder; a card of somebody else stays as it is."""
    from hf_labels.hub_cards import render_card, save_card

    card = render_card(
        "latent_label_shift",
        model_id=model_id,
        base_model=base_model,
        results=results,
        plots=plots,
        pipeline_tag=pipeline_tag,
        training=training,
        label_assumptions="No label was used; the classes are numbered, not named.",
        extra=card_facts(lls),
    )
    return save_card(card, folder, plots)


def annotate(
    lls: LatentLabelShift,
    dataset: Any,
    domain_probs: Any,
    domain_column: str | None = "domain",
    *,
    prefix: str = "",
) -> Any:
    """A copy of the data set with the classes that were found: `labels` (class id) and `soft_labels` (K floats).

    Args:
        lls ([`LatentLabelShift`]): Fitted, with a solver that gives probabilities (not `"pinv"`).
        dataset (`datasets.Dataset`): Rows in the order of `domain_probs`.
        domain_probs (array of shape `(N, r)` or `PredictionOutput`): As in `fit`.
        domain_column (`str`, *optional*, defaults to `"domain"`): Domain ids, -1 = unknown; `None`: all are unknown.
        prefix (`str`, *optional*): Put before both names, where `labels` is taken already.

    Raises:
        KeyError: If there is no such column.
        ValueError: If the rows do not fit, or the columns are there already.
    """
    from datasets import ClassLabel, List, Value

    from hf_labels.labels.columns import read_column, require_columns, write_column

    if lls.solver == "pinv":
        raise ValueError("`solver='pinv'` gives no probabilities. Use 'clip' or 'nnls' for soft labels.")
    names = [f"{prefix}labels", f"{prefix}soft_labels"]
    taken = [name for name in names if name in dataset.column_names]
    if taken:
        raise ValueError(f"Column `{taken[0]}` is there already. Rename it, or pass `prefix='found_'`.")
    domains = None
    if domain_column is not None:
        require_columns(dataset, [domain_column], "domain_column")
        domains = read_column(dataset, domain_column).values
    probs = lls.predict_proba(domain_probs, domains)
    if len(probs) != len(dataset):
        raise ValueError(f"The data set has {len(dataset)} rows, there are {len(probs)} rows of `domain_probs`.")
    classes = ClassLabel(names=[f"class_{i}" for i in range(lls.num_classes)])
    dataset = write_column(dataset, names[0], probs.argmax(1), classes)
    return write_column(dataset, names[1], list(probs.astype(np.float32)), List(Value("float32")))
