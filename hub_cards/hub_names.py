"""Names that the Hub accepts in the metadata of a card. With any other it refuses the push."""

import re

# The tasks of the Hub, as its filter shows them.
PIPELINE_TAGS = frozenset(
    """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation
    document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction
    image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image
    image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection other
    question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering
    table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation
    text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video
    time-series-forecasting token-classification translation unconditional-image-generation video-classification
    video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection
    zero-shot-classification zero-shot-image-classification zero-shot-object-detection
    """.split()
)

LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc
    lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa
    odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)

_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})?")


def is_hub_id(name: object) -> bool:
    """Whether `name` can be the id of a model or data set: `name` or `owner/name`, no path, no address."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)  # type: ignore[arg-type]
    except HFValidationError:
        return False
    return isinstance(name, str) and name.isascii() and not name.startswith((".", "~"))


def is_local(name: str) -> bool:
    """Whether `from_pretrained` and `load_dataset` would take `name` for a folder that lies here."""
    import os

    try:
        return os.path.isdir(name)
    except ValueError:  # a null character
        return False


def check_license(name: str | None) -> str:
    """The licence id, `"unknown"` for `None`.

    Raises:
        ValueError: If the Hub does not know it.
    """
    if name is None:
        return "unknown"
    if name not in LICENSES:
        raise ValueError(f"`license` must be a licence id of the Hub such as 'apache-2.0', or 'other'; got {name!r}.")
    return name


def check_languages(language: object) -> list[str] | None:
    """A list of language codes, `None` for `None`.

    Raises:
        ValueError: If one is not a code of two or three letters, `"code"` or `"multilingual"`.
    """
    if language is None:
        return None
    codes = [language] if isinstance(language, str) else list(language)  # type: ignore[call-overload]
    for item in codes:
        if not isinstance(item, str) or not (item in ("code", "multilingual") or _LANGUAGE.fullmatch(item)):
            raise ValueError(f"`language` must hold codes such as 'en' or 'pt-BR', got {item!r}.")
    return codes or None


def check_task(pipeline_tag: str) -> str:
    """The task itself.

    Raises:
        ValueError: If the Hub does not know it; close names are given.
    """
    if pipeline_tag not in PIPELINE_TAGS:
        import difflib

        near = difflib.get_close_matches(str(pipeline_tag), sorted(PIPELINE_TAGS), 3) or ["text-classification"]
        raise ValueError(
            f"`pipeline_tag` {pipeline_tag!r} is not a task of the Hub. Did you mean {' or '.join(near)}?"
        )
    return pipeline_tag
