"""Jacobi decoding as a `custom_generate` folder that any model repository can carry."""

import tempfile
from pathlib import Path
from typing import Any

from hf_labels.generation import jacobi

_REQUIREMENTS = "torch>=2.4\ntransformers>=5.23\n"
_TAGS = ["custom_generate", "hf_labels", "ceed_vla"]
_HEADING = "## Jacobi decoding"
_TEXT = f"""\
{_HEADING}

This repository carries a `custom_generate` recipe: all tokens of a block are guessed, predicted again in parallel, and
kept when nothing changes. The result is that of greedy decoding (up to rounding), in at most as many forward passes.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("MODEL_ID")
model = AutoModelForCausalLM.from_pretrained("MODEL_ID")
inputs = tokenizer("A prompt", return_tensors="pt")
tokens = model.generate(
    **inputs, max_new_tokens=32, do_sample=False, custom_generate="REPO_ID", trust_remote_code=True, block_size=16
)
```

| argument | default | meaning |
| --- | --- | --- |
| `block_size` | 16 | tokens guessed together |
| `max_jacobi_iter` | none | early exit: most passes over a block; fewer passes, other tokens |
| `exit_tolerance` | none | early exit: stop when so few tokens change |
| `init` | `"prompt"` | first guess: `"prompt"`, `"last"`, `"zero"`, a token id, a tensor |
| `fuse_prefill` | `True` | prompt and first guess in one pass |
| `return_jacobi_stats` | `False` | return passes and iterates too |

For decoder-only models, greedy only: no sampling, beams or logits processors. Pad the prompts of a batch on the left.
The gain is in models that were distilled for it; others save few passes. With `from_pretrained(...,
trust_remote_code=True)` the recipe replaces `model.generate`; then pass `input_ids=` by name.

Source: Song et al. 2025, CEED-VLA, [arXiv:2506.13725](https://arxiv.org/abs/2506.13725); Kou et al. 2024, Consistency
LLM, [arXiv:2403.00835](https://arxiv.org/abs/2403.00835).
"""


def save_custom_generate(folder: str | Path, repo_id: str | None = None, card: bool = True) -> Path:
    """Write Jacobi decoding into a model folder, so that `generate(custom_generate=folder)` finds it.

    Writes `custom_generate/generate.py` (the file of [`jacobi_generate`], byte for byte; it needs torch and
    transformers only), `custom_generate/requirements.txt`, and into `README.md` the tag `custom_generate` and a
    section on how to use it. An existing `README.md` keeps all it has. Written again, the folder stays the same.

    Args:
        folder (`str` or `Path`): Of a saved model, or a new one.
        repo_id (`str`, *optional*): Named in the example of the card; the folder's name by default.
        card (`bool`, *optional*, defaults to `True`): Write `README.md`.

    Returns:
        `Path`: The folder `custom_generate`.
    """
    folder = Path(folder)
    place = folder / "custom_generate"
    place.mkdir(parents=True, exist_ok=True)
    (place / "generate.py").write_bytes(Path(jacobi.__file__).read_bytes())
    (place / "requirements.txt").write_text(_REQUIREMENTS, encoding="utf-8")
    if card:
        _write_card(folder / "README.md", repo_id or folder.name)
    return place


def push_custom_generate(
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Add Jacobi decoding",
) -> Any:
    """Add Jacobi decoding to a model repository on the Hub, in one commit; the repository is made when it is new.

    The card of the repository is kept and gets the tag `custom_generate` and a section.

    Args:
        repo_id (`str`): `user/name`.
        token, private, revision, create_pr, commit_message: As in `HfApi.create_repo` and `HfApi.upload_folder`.

    Returns:
        `huggingface_hub.CommitInfo`
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = api.hf_hub_download(repo_id, "README.md", revision=revision)
            (Path(folder) / "README.md").write_bytes(Path(found).read_bytes())
        except EntryNotFoundError:
            pass
        save_custom_generate(folder, repo_id)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            revision=revision,
            create_pr=create_pr,
        )


def _write_card(path: Path, repo_id: str) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    text = _TEXT.replace("REPO_ID", repo_id).replace("MODEL_ID", repo_id)
    if path.exists():
        card = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        found = card.data.get("tags") or []
        tags = [found] if isinstance(found, str) else found
        card.data["tags"] = list(dict.fromkeys([*tags, *_TAGS]))
        if _HEADING not in card.text:
            card.text = card.text.rstrip("\n") + "\n\n" + text
    else:
        data = ModelCardData(library_name="transformers", tags=_TAGS)
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[-1]}\n\n{text}")
    card.save(path)
