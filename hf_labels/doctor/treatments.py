"""Which methods of the catalog treat what the doctor finds, with commands that run as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from hf_labels import catalog

MODEL = "distilbert/distilroberta-base"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Treatment:
    """A method that treats a finding.

    Parameters:
        slug (`str`): In the catalog. ready (`bool`): False for a planned method; it has no command yet.
        why (`str`): What it does about it.
        command (`str`): For a shell, or Python.
    """

    slug: str
    why: str
    command: str
    ready: bool


_LOAD = "from hf_labels.data.load import load_data\ndata = load_data({source}, split={split}{config})\n{encode}"
_LISTS = "from hf_labels.data.load import parse_list_cells\ndata = parse_list_cells(data)\n"
_ENCODE = "from hf_labels.labels.kinds import encode_labels\ndata = encode_labels(data, {label})\n"
_DERIVE = (
    "from hf_labels.labels.kinds import convert_column\n"
    "data = convert_column(data, {kind}, 'hard', column={label}, target_column={target}{empty})\n"
)
_REPAIR = "from hf_labels.labels.kinds import repair_column\ndata = repair_column(data, {kind}, {label})\n"
_GOOD = (
    "good = [p and None not in p and min(p) >= 0 and abs(sum(p) - 1) <= 1e-3 for p in data[{label}][:]]\n"
    "data = data.select([row for row, is_good in enumerate(good) if is_good])\n"
)
_WITH = "data = data.select([row for row, one in enumerate(data[{column}][:]) if one])  # without text no features\n"
_IN_BAG = "data = data.select([row for row, one in enumerate(data[{column}][:]) if one not in (None, -1)])\n"
_LABELLED = (
    "data = data.select([row for row, k in enumerate(data[{label}][:]) if k >= 0])  # the others have no label\n"
)
_TRAIN = (
    "hf-labels train {slug} --dataset {shell} --model {model} --text_column {text_word} --label_column {label_word} "
    "{places}"
)
_OUT = "--output_dir out/{slug}"
_ISSUES = "issues = find_label_issues(data, probs, {label})\ncleaned = issues.apply(data, 'filter', {label})"
_CODE: dict[str, str] = {
    "confident images": _LOAD
    + "from hf_labels import cross_fit, find_label_issues\n"
    + "from hf_labels.doctor.features import thumbnails\n"
    + "probs = cross_fit(thumbnails(data, {image}), data, label_column={label})\n"
    + _ISSUES,
    "confident_learning": _LOAD
    + "from hf_labels import cross_fit, find_label_issues\n"
    + "probs = cross_fit({encoder}, data, label_column={label}, text_column={text})\n"
    + _ISSUES,
    "crowd_soft_labels": _LOAD
    + "from hf_labels import aggregate_annotations\n"
    + "found = aggregate_annotations(data, 'average', worker_column=None, label_column={crowd}, on_empty='uniform')\n"
    + "data = found.to_dataset(data)",
    "crowd answers": _LOAD
    + "from hf_labels import aggregate_annotations\n"
    + "found = aggregate_annotations(\n"
    + "    data, 'average', item_column={item}, worker_column={worker}, label_column={label}\n"
    + ")\n"
    + "data = found.to_dataset()  # a row per item",
    "llp_bp": _LOAD
    + "from hf_labels import llp_pseudo_labels\n"
    + "from hf_labels.data.encoders import make_encoder\n"
    + "from hf_labels.labels.llp_bp import bag_proportions\n"
    + "bags = data[{bag}][:]\n"
    + "counts = bag_proportions(bags, dict(zip(bags, data[{proportion}][:])))\n"
    + "x = make_encoder({encoder}, None).encode(data[{text}][:])\n"
    + "found = llp_pseudo_labels(x, bags, counts, lambda_s=1.0, length_scale='median')\n"
    + "data = found.to_dataset(data)",
    "lp_icp": "hf-labels card lp_icp",
    "llm_label_errors": "hf-labels card llm_label_errors",
    "unsupervised_prompt_learning": "hf-labels card unsupervised_prompt_learning",
    "tnt_llm": "hf-labels card tnt_llm",
    "kg_zero_shot": "hf-labels card kg_zero_shot",
    "latent_label_shift": "hf-labels card latent_label_shift",
    "crosstune": _TRAIN + _OUT,
    "zero_shot_tc": _TRAIN + _OUT,
    "soft_labels": _TRAIN + _OUT,
}

TREATMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "noise": (
        ("confident_learning", "ranks the rows by how wrong their label looks, and removes or corrects them"),
        ("llm_label_errors", "asks language models about the suspects, and says how sure they are"),
    ),
    "conflict": (("confident_learning", "says which of the labels of equal texts fits its neighbours"),),
    "crowd": (("crowd_soft_labels", "weighs the annotators and gives one distribution per item"),),
    "few": (
        ("crosstune", "learns from few labels and the descriptions of the classes"),
        ("kg_zero_shot", "takes classes without examples from a knowledge graph"),
        ("zero_shot_tc", "classifies by entailment with names of classes"),
    ),
    "skewed": (
        ("imbalanced_semi_self", "self-training that keeps the tail"),
        ("capro", "long tails with noisy labels from the web"),
        ("crosstune", "for the classes of which there are only a few rows"),
    ),
    "missing": (
        ("unsupervised_prompt_learning", "labels rows by a language model, the sure ones first"),
        ("zero_shot_tc", "labels rows by the names of the classes"),
    ),
    "unlabelled": (
        ("tnt_llm", "makes the classes themselves, and labels with them"),
        ("unsupervised_prompt_learning", "labels rows by a language model when the classes are known"),
    ),
    "partial": (
        ("plt_mlc", "multi-label data with missing labels and a long tail"),
        ("pu_mlc", "multi-label data of which only positives are known"),
    ),
    "plural": (("lp_icp", "sets of label sets that hold the truth as often as promised"),),
    "bags": (("llp_bp", "labels of instances from counts in bags"),),
    "calibration": (("rankmixup", "trains so that confidence follows the share of the label in a mixture"),),
    "shift": (("latent_label_shift", "classes and mixtures of domains whose mixtures differ"),),
}


_OF_TEXT = ("confident_learning", "crosstune", "zero_shot_tc", "llp_bp")
_ONE_LABEL = ("confident_learning", "crosstune", "zero_shot_tc")


def treatments_for(problem: str, dataset: str, command: Mapping[str, str]) -> tuple[Treatment, ...]:
    """Treatments of a problem.

    Args:
        problem (`str`): Key of `TREATMENTS`; others have none.
        dataset (`str`): What the user calls the data.
        command (mapping): `split`, and columns `text`, `label`, `crowd`, `bag`, `proportion` where known.

    Methods of one label a row are left out for multi labels.
    """
    found = []
    for slug, why in TREATMENTS.get(problem, ()):
        if command.get("kind") == "multi" and slug in _ONE_LABEL:
            continue
        method = next((one for one in catalog.METHODS if one.slug == slug), None)
        if method is None:
            continue
        ready = method.status == "ready"
        text = _command(slug, dataset, command) if ready else ""
        found.append(Treatment(slug, why if ready else f"{why} (planned)", text, ready))
    return tuple(found)


def _command(slug: str, dataset: str, given: Mapping[str, str]) -> str:
    text, label = given.get("text", "text"), given.get("label", "labels")
    hard = given.get("target", "labels") if given.get("derived") else label
    split, config = given.get("split", "train"), given.get("config")
    encode = _LISTS if given.get("lists") else ""
    if slug == "confident_learning":
        encode += _hard_labels(given, label, hard)
    places = f"--train_split {_word(split)} " if split != "train" else ""
    places += f"--dataset_config {_word(config)} " if config else ""
    if slug == "crowd_soft_labels" and given.get("crowd") and given.get("nulls"):
        encode += _REPAIR.format(kind="'crowd'", label=repr(given["crowd"]))
    if slug == "llp_bp" and given.get("no bag"):
        encode += _IN_BAG.format(column=repr(given.get("bag", "bag_id")))
    if slug in ("confident_learning", "llp_bp") and given.get("no text"):
        encode += _WITH.format(column=repr(text))
    code = "crowd answers" if slug == "crowd_soft_labels" and given.get("worker") else slug
    if slug == "confident_learning" and "image" in given:
        code = "confident images"
    elif slug in _OF_TEXT and "text" not in given:
        code = ""  # there is no input for its command
    found = _CODE.get(code, "hf-labels card {slug}").format(
        slug=slug,
        encode=encode,
        source=repr(dataset),
        shell=_word(dataset),
        split=repr(split),
        config=f", config={config!r}" if config else "",
        places=places,
        text=repr(text),
        label=repr(hard),
        text_word=_word(text),
        label_word=_word(label),
        item=repr(given.get("item", "task")),
        worker=repr(given.get("worker", "worker")),
        image=repr(given.get("image", "image")),
        crowd=repr(given.get("crowd", "annotator_labels")),
        bag=repr(given.get("bag", "bag_id")),
        proportion=repr(given.get("proportion", "proportion")),
        model=MODEL,
        encoder=repr(ENCODER),
    )
    if slug == "crowd_soft_labels" and given.get("crowd") and given.get("text"):
        words = ["hf-labels", "train", slug, "--dataset", dataset, "--model", MODEL, "--text_column", text]
        words += ["--label_column", given["crowd"]]
        found += f"\n# or, to train on it: {' '.join(map(_word, words))} {places}{_OUT.format(slug=slug)}"
    return found


def _hard_labels(given: Mapping[str, str], label: str, hard: str) -> str:
    """Code that makes one class id of each row, as the doctor did, and leaves rows without one out."""
    kind = given.get("derived") or "hard"
    code = ""
    if kind == "soft" and given.get("bad soft"):
        code += _GOOD.format(label=repr(label))
    elif given.get("nulls") and not given.get("encode"):
        code += _REPAIR.format(kind=repr(kind), label=repr(label))
    if given.get("encode"):
        code += _ENCODE.format(label=repr(label))
    if given.get("derived"):
        empty = ", on_empty='missing'" if kind == "crowd" else ""
        code += _DERIVE.format(kind=repr(kind), label=repr(label), target=repr(hard), empty=empty)
    return code + (_LABELLED.format(label=repr(hard)) if given.get("missing") else "")


def _word(text: str) -> str:
    """A word for a shell, on one line whatever is in it."""
    if text.isprintable():
        return shlex.quote(text)
    inside = "".join(
        "\\'" if c == "'" else c if c.isprintable() else ascii(c)[1:-1] for c in text.replace("\\", r"\\")
    )
    return f"$'{inside}'"
