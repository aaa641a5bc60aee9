"""Which methods of the catalog treat what the doctor finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hf_labels import catalog
from hf_labels.doctor.commands import command_for


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


TREATMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "noise": (
        ("confident_learning", "ranks the rows by how wrong their label looks, and removes or corrects them"),
        ("llm_label_errors", "asks language models about the suspects, and says how sure they are"),
    ),
    "conflict": (("confident_learning", "says which of the labels of equal texts fits its neighbours"),),
    "crowd": (("crowd_soft_labels", "weighs the annotators and gives one distribution per item"),),
    "few": (
        ("crosstune", "learns from few labels and the descriptions of the classes"),
        ("zero_shot_tc", "classifies by entailment with names of classes"),
    ),
    "absent": (
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

_ONE_LABEL = ("crosstune", "zero_shot_tc", "llm_label_errors")


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
        text = command_for(slug, dataset, command) if ready else ""
        found.append(Treatment(slug, why if ready else f"{why} (planned)", text, ready))
    return tuple(found)
