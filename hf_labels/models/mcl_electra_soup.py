"""Course soups: one discriminator out of several that learned different courses from the same start."""

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import ElectraConfig, ElectraModel

from hf_labels.models.mcl_electra_config import MCLElectraConfig
from hf_labels.models.weights import greedy_choice, mix_weights

logger = logging.getLogger(__name__)


def course_soup(
    members: Sequence[str | Path],
    method: str = "uniform",
    evaluate_fn: Callable[[ElectraModel], float] | None = None,
    *,
    output_dir: str | Path | None = None,
) -> ElectraModel:
    """Average the discriminators of several runs.

    It only makes sense within one lineage: runs that start from one checkpoint and differ in courses or weights.
    Networks that were initialised differently give a soup that is worse than each of them.

    Args:
        members (`Sequence[str]`): Folders of saved [`MCLElectraForPreTraining`] models or of exported encoders.
        method (`str`, *optional*, defaults to `"uniform"`): `"uniform"` averages all; `"greedy"` starts from the best
            and adds one after the other as long as the score of the average does not fall.
        evaluate_fn (*optional*): `encoder -> score`, higher is better, on validation data; needed for `"greedy"`.
        output_dir (`str`, *optional*): Keep the soup here too; with the tokenizer, if a member has one.

    Returns:
        `ElectraModel`: A stock encoder in eval mode. What went in is in its attribute `soup` (a dict).

    Raises:
        ValueError: No member, another method, `"greedy"` without `evaluate_fn`, members with different tensors, or a
            folder with a model of another kind.
        FileNotFoundError: A folder without safetensors.

    Source: arXiv:2305.03981 (abstract: course soups); Wortsman et al. 2022, arXiv:2203.05482 (model soups).
    """
    if not members:
        raise ValueError("There is no model to mix: `members` is empty.")
    if method not in ("uniform", "greedy"):
        raise ValueError(f"`method` must be 'uniform' or 'greedy', got {method!r}.")
    if method == "greedy" and evaluate_fn is None:
        raise ValueError("A greedy soup needs `evaluate_fn`, a score on validation data.")
    with tempfile.TemporaryDirectory() as scratch:
        number = 0

        def mixed(chosen: Sequence[int]) -> ElectraModel:
            nonlocal number
            number += 1
            return _average([members[i] for i in chosen], Path(scratch) / str(number))

        report: dict[str, Any] = {"method": method, "members": len(members), "kept": list(range(len(members)))}
        if method == "greedy":
            assert evaluate_fn is not None
            score = evaluate_fn
            scores = [float(score(mixed([i]))) for i in range(len(members))]
            report["kept"], report["score"], report["tried"] = greedy_choice(scores, lambda c: score(mixed(c)))
            report["scores"] = scores
        model = mixed(report["kept"])
    result: Any = model
    result.soup = report
    if output_dir is not None:
        model.save_pretrained(output_dir)
        _copy_tokenizer(Path(members[0]), Path(output_dir))
    return model


def _average(folders: Sequence[str | Path], scratch: Path) -> ElectraModel:
    parts = [_part(folder) for folder in folders]
    mix_weights(folders, scratch, prefixes=[prefix for prefix, _ in parts], copy_files=False)
    parts[0][1].save_pretrained(scratch)
    return ElectraModel.from_pretrained(scratch).eval()


def _part(folder: str | Path) -> tuple[str, ElectraConfig]:
    """Where the encoder is in the weights of a folder, and its config."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json. Members are folders of `save_pretrained`.")
    config = json.loads(path.read_text(encoding="utf-8"))
    kind, architecture = config.get("model_type"), (config.get("architectures") or [""])[0]
    if kind == MCLElectraConfig.model_type:
        return "discriminator.electra.", _stock(config["discriminator_config"])
    if kind == "electra" and architecture != "ElectraForMaskedLM":
        return "" if architecture == "ElectraModel" else "electra.", _stock(config)
    raise ValueError(f"{folder} holds a {architecture or kind}, a soup takes MCL models or ELECTRA discriminators.")


def _stock(config: dict[str, Any]) -> ElectraConfig:
    hidden = ("_name_or_path", "architectures", "model_type", "transformers_version")
    return ElectraConfig(**{name: value for name, value in config.items() if name not in hidden})


def _copy_tokenizer(source: Path, target: Path) -> None:
    from transformers import AutoTokenizer

    if (source / "tokenizer_config.json").is_file():
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
    else:
        logger.info("%s has no tokenizer, so the soup has none.", source)
