"""Commands and code of treatments, which run as they stand on the data that were examined."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

MODEL = "distilbert/distilroberta-base"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
WRITER = "meta-llama/Llama-3.1-8B-Instruct"

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
_KNOWN = (
    "data = data.select([row for row, cells in enumerate(data[{label}][:]) if cells is not None])  # the others are "
    "unknown\n"
)
_COMPLETE = (
    "known = [cells is not None and all(c in (0, 1) for c in cells) for cells in data[{label}][:]]\n"
    "data = data.select([row for row, is_known in enumerate(known) if is_known])\n"
)
_ISSUES = (
    "issues = find_label_issues(data, probs, {label})\n"
    "suspects = issues.ranked()[:{count}]  # look at them before they go\n"
    "cleaned = data.select(sorted(set(range(len(data))) - set(suspects.tolist())))"
)
_PROBS = (
    "from hf_labels import cross_fit, find_label_issues\n"
    "probs = cross_fit({encoder}, data, label_column={label}, text_column={text})\n"
)
_JUDGE = (
    "from hf_labels.lm import EmbeddingLM\n"
    "lm = EmbeddingLM({encoder}, truncate=True)  # a small one; InferenceClientLM and TransformersLM ask larger ones\n"
    "names = data.features[{label}].names\n"
)
_CODE: dict[str, str] = {
    "confident images": _LOAD
    + "from hf_labels import cross_fit, find_label_issues\n"
    + "from hf_labels.doctor.features import thumbnails\n"
    + "probs = cross_fit(thumbnails(data, {image}), data, label_column={label})\n"
    + _ISSUES,
    "confident_learning": _LOAD + _PROBS + _ISSUES,
    "confident sets": _LOAD
    + _PROBS
    + "issues = find_label_issues(data, probs, {label})\n"
    + "data = issues.annotate(data).select(issues.ranked())  # with quality and suggested labels, the worst first",
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
    "lp_icp": _LOAD
    + "from hf_labels import LabelPowersetICP, cross_fit\n"
    + "probs = cross_fit({encoder}, data, label_column={label}, text_column={text})  # or of your model, on new rows\n"
    + "half = len(data) // 2\n"
    + "icp = LabelPowersetICP().calibrate(probs[:half], data[{label}][:half])\n"
    + "sets = icp.predict(probs[half:], epsilon=0.1)\n"
    + "print([one.size for one in sets][:20])",
    "llm_label_errors": _LOAD
    + "from hf_labels import LabelErrorDetector\n"
    + _JUDGE
    + "asked = data.select_columns([{text}, {label}])\n"
    + "report = LabelErrorDetector([lm], [{prompt}], names).report(asked, label_column={label})\n"
    + "print(report.worklist())  # rows for people to look at, the surest first",
    "unsupervised_prompt_learning": _LOAD
    + "from hf_labels import UnsupervisedPromptLearner, UnsupervisedPromptLearningArguments\n"
    + _JUDGE
    + "todo = data.select([row for row, k in enumerate(data[{label}][:]) if k < 0])\n"
    + "args = UnsupervisedPromptLearningArguments(output_dir='out/unsupervised_prompt_learning')\n"
    + "learner = UnsupervisedPromptLearner(lm, names, '{{prompt}} {{text}}', args)\n"
    + "labelled = learner.fit(todo, text_column={text}).pseudo_labels  # labels, confidence, round",
    "tnt_llm": _LOAD
    + "from hf_labels import LLMLabeler, TaxonomyArguments, TaxonomyClassifier, TaxonomyInducer\n"
    + "from hf_labels.lm import InferenceClientLM\n"
    + "lm = InferenceClientLM({writer}, cache_dir='out/tnt_llm/answers')  # or TransformersLM\n"
    + "taxonomy = TaxonomyInducer(lm, args=TaxonomyArguments('what are these texts about?')).fit(data[{text}][:])\n"
    + "labelled = LLMLabeler(lm, taxonomy).label(data, text_column={text})\n"
    + "model = TaxonomyClassifier.train_on(labelled, {encoder}, text_column={text}, taxonomy=taxonomy)",
    "kg_zero_shot": _LOAD
    + "from hf_labels import KGZeroShotClassifier, KnowledgeGraph\n"
    + "names = data.features[{label}].names  # looked up in WordNet; a dict of names and nodes says it better\n"
    + "model = KGZeroShotClassifier.fit(\n"
    + "    data[{text}][:],\n"
    + "    [names[k] for k in data[{label}][:]],\n"
    + "    kg=KnowledgeGraph.from_wordnet(),\n"
    + "    class_nodes=names,\n"
    + "    encoder={encoder},\n"
    + "    semantics='text',\n"
    + ")",
    "crosstune": _TRAIN + _OUT,
    "zero_shot_tc": _TRAIN + _OUT,
    "soft_labels": _TRAIN + _OUT,
}


_OF_HARD = ("confident_learning", "llm_label_errors", "kg_zero_shot", "unsupervised_prompt_learning")
_OF_SETS = ("confident_learning", "lp_icp")
_OF_NAMES = ("llm_label_errors", "kg_zero_shot", "unsupervised_prompt_learning")
_NOT_OF_TEXT = ("crowd_soft_labels",)


def command_for(slug: str, dataset: str, given: Mapping[str, str]) -> str:
    """Of a method, for the data `dataset` of which `given` is known; `hf-labels card METHOD` if that is too little."""
    text, label = given.get("text", "text"), given.get("label", "labels")
    hard = given.get("target", "labels") if given.get("derived") else label
    split, config = given.get("split", "train"), given.get("config")
    places = f"--train_split {_word(split)} " if split != "train" else ""
    places += f"--dataset_config {_word(config)} " if config else ""
    found = _CODE.get(_kind_of_code(slug, given), "hf-labels card {slug}").format(
        slug=slug,
        encode=_preparation(slug, given, text, label, hard),
        source=repr(dataset),
        shell=_word(dataset),
        split=repr(split),
        config=f", config={config!r}" if config else "",
        places=places,
        text=repr(text),
        label=repr(hard),
        text_word=_word(text),
        label_word=_word(label),
        prompt=repr("{" + text + "}"),
        count=given.get("flagged", ""),
        item=repr(given.get("item", "task")),
        worker=repr(given.get("worker", "worker")),
        image=repr(given.get("image", "image")),
        crowd=repr(given.get("crowd", "annotator_labels")),
        bag=repr(given.get("bag", "bag_id")),
        proportion=repr(given.get("proportion", "proportion")),
        model=MODEL,
        encoder=repr(ENCODER),
        writer=repr(WRITER),
    )
    if slug == "crowd_soft_labels" and given.get("crowd") and given.get("text"):
        words = ["hf-labels", "train", slug, "--dataset", dataset, "--model", MODEL, "--text_column", text]
        words += ["--label_column", given["crowd"]]
        found += f"\n# or, to train on it: {' '.join(map(_word, words))} {places}{_OUT.format(slug=slug)}"
    return found


def _kind_of_code(slug: str, given: Mapping[str, str]) -> str:
    """Key of `_CODE`; `""` where the data lack what its command reads."""
    if slug == "crowd_soft_labels" and given.get("worker"):
        return "crowd answers"
    if slug == "confident_learning" and "image" in given:
        return "confident images" if given.get("kind") != "multi" else ""
    if "text" not in given and slug not in _NOT_OF_TEXT:
        return ""
    if slug in _OF_NAMES and not given.get("named"):
        return ""
    if slug == "llm_label_errors" and not given["text"].isidentifier():  # prompts name columns
        return ""
    return "confident sets" if slug == "confident_learning" and given.get("kind") == "multi" else slug


def _preparation(slug: str, given: Mapping[str, str], text: str, label: str, hard: str) -> str:
    """Code that reads the data as the doctor did."""
    code = _LISTS if given.get("lists") else ""
    if given.get("kind") == "multi" and slug in _OF_SETS:
        code += (_KNOWN + _ENCODE if given.get("encode") else _COMPLETE).format(label=repr(label))
    elif slug in _OF_HARD:
        code += _hard_labels(given, label, hard, slug != "unsupervised_prompt_learning")
    if slug == "crowd_soft_labels" and given.get("crowd") and given.get("nulls"):
        code += _REPAIR.format(kind="'crowd'", label=repr(given["crowd"]))
    if slug == "llp_bp" and given.get("no bag"):
        code += _IN_BAG.format(column=repr(given.get("bag", "bag_id")))
    if given.get("no text") and slug not in _NOT_OF_TEXT:
        code += _WITH.format(column=repr(text))
    return code


def _hard_labels(given: Mapping[str, str], label: str, hard: str, labelled: bool = True) -> str:
    """Code that makes one class id of each row, -1 for none, and leaves rows without one out if `labelled`."""
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
    return code + (_LABELLED.format(label=repr(hard)) if labelled and given.get("missing") else "")


def _word(text: str) -> str:
    """A word for a shell, on one line whatever is in it."""
    if text.isprintable():
        return shlex.quote(text)
    inside = "".join(
        "\\'" if c == "'" else c if c.isprintable() else ascii(c)[1:-1] for c in text.replace("\\", r"\\")
    )
    return f"$'{inside}'"
