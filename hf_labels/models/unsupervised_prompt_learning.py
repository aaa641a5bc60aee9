"""What unsupervised prompt learning learns: a distribution over prompts, and the classifier that comes of it."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_labels.labels.unsupervised_prompt_learning import (
    PromptTemplate,
    draw_demonstrations,
    nearest_demonstrations,
    prompt_words,
)
from hf_labels.lm.base import BlackBoxLM
from hf_labels.lm.prompted import PromptScorer, Question, kept_vectors
from hf_labels.losses.unsupervised_prompt_learning import project_simplex

logger = logging.getLogger(__name__)

SLUG = "unsupervised_prompt_learning"
CONFIG, WEIGHTS = "prompt_classifier.json", "prompt_distribution.safetensors"
_SAVED = (
    *("labels", "label_words", "template", "vocabulary", "prompt_ids", "demo_texts", "demo_labels", "k_demo"),
    *("demo_strategy", "seed", "initial_prompt", "param", "log_history", "stopped_early", "settings"),
)
_OF_THE_MACHINE = ("cache_dir", "budget", "gguf_folder", "gguf_file")


class PromptDistribution(nn.Module):
    """An independent categorical distribution over N candidates for each of m positions; float64, uniform at first.

    Parameters:
        length (`int`): m positions; 0 is the empty prompt.
        size (`int`): N candidates.
        param (`str`, *optional*, defaults to `"logits"`): `theta` holds the logits of a soft-max, or (`"simplex"`) the
            probabilities themselves; then call `project_` after each step.

    Raises:
        ValueError: If N is below 1 with m above 0, or `param` is unknown.
    """

    def __init__(self, length: int, size: int, param: str = "logits") -> None:
        super().__init__()
        if param not in ("logits", "simplex"):
            raise ValueError(f"`param` must be 'logits' or 'simplex', got {param!r}.")
        if length < 0 or (length > 0 and size < 1):
            raise ValueError(f"{length} positions need a vocabulary of at least 1 candidate, got {size}.")
        self.param = param
        start = torch.full((length, size), 0.0 if param == "logits" or not size else 1 / size, dtype=torch.float64)
        self.theta = nn.Parameter(start)

    def probs(self) -> Tensor:
        """Probabilities `(m, N)` without a gradient path."""
        theta = self.theta.detach()
        return theta.softmax(dim=1) if self.param == "logits" else theta

    def sample(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Prompts `(S, m)` of token ids."""
        if not len(self.theta):
            return torch.zeros((size, 0), dtype=torch.long)
        return torch.multinomial(self.probs(), size, replacement=True, generator=generator).T

    def log_prob(self, indices: Tensor) -> Tensor:
        """Log-probability `(S,)` of prompts `(S, m)`; differentiable in `theta`."""
        logs = self.theta.log_softmax(dim=1) if self.param == "logits" else self.theta.log()
        return logs.expand(len(indices), *logs.shape).gather(2, indices.unsqueeze(2)).sum(dim=(1, 2))

    def mode(self) -> Tensor:
        """The most probable prompt `(m,)`, the lowest token among equals."""
        if not self.theta.numel():  # the empty prompt
            return torch.zeros(0, dtype=torch.long)
        return torch.as_tensor(self.probs().numpy().argmax(axis=1), dtype=torch.long)

    def entropy(self) -> float:
        """Mean entropy of the positions in nats; 0 for the empty prompt."""
        probs = self.probs()
        return float(torch.special.entr(probs).sum(dim=1).mean()) if len(probs) else 0.0

    @torch.no_grad()
    def project_(self) -> None:
        """Put `theta` back on the simplex (does nothing for logits)."""
        if self.param == "simplex" and len(self.theta):
            self.theta.copy_(project_simplex(self.theta))


@dataclass
class PromptClassifier:
    """A black-box language model with a learned prompt and pseudo-labelled demonstrations, as a text classifier.

    Parameters:
        lm ([`BlackBoxLM`]): The model; not saved.
        labels (`tuple[str, ...]`), label_words (`tuple[str, ...]`): Names of the C classes, and the words scored.
        template (`str`): See [`PromptTemplate`].
        vocabulary (`list[str]`), prompt_ids (`list[int]`): Candidates, and the chosen ones; empty: `initial_prompt`.
        demo_texts (`list[str]`), demo_labels (`list[int]`): The pool that demonstrations are drawn from.
        k_demo (`int`), demo_strategy (`str`), seed (`int`): How: `"random"` (classes in turn) or `"nearest"`.
        initial_prompt (`str`, *optional*): Fixed words before the chosen ones.
        theta (`(m, N)` array, *optional*), param (`str`): The learned [`PromptDistribution`].
        embedder (`Callable`, *optional*): Texts -> `(n, D)`, for `"nearest"`; defaults to `lm.embed`.
        pseudo_labels (`datasets.Dataset`, *optional*): The corpus: text, index, labels, confidence, round, source.
        log_history (`list[dict]`): One entry for each logged step.
        stopped_early (`bool`): The budget ended the training.
        settings (`dict`): Arguments of the learner, for the card.
    """

    lm: BlackBoxLM
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    template: str
    vocabulary: list[str] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    demo_texts: list[str] = field(default_factory=list)
    demo_labels: list[int] = field(default_factory=list)
    k_demo: int = 0
    demo_strategy: str = "random"
    seed: int = 0
    initial_prompt: str = ""
    theta: Any = None
    param: str = "logits"
    embedder: Callable[[list[str]], Any] | None = None
    pseudo_labels: Any = None
    log_history: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._scorer = PromptScorer(self.lm, self.label_words, PromptTemplate(self.template))
        self._vectors: np.ndarray | None = None

    @property
    def prompt(self) -> str:
        """The words that stand before every question."""
        return self.prompt_of(self.prompt_ids)

    @property
    def prompt_tokens(self) -> list[str]:
        """The chosen candidates, one for each position."""
        return [self.vocabulary[token] for token in self.prompt_ids]

    def prompt_of(self, ids: Sequence[int]) -> str:
        """The prompt of other candidates."""
        return " ".join(part for part in (self.initial_prompt, prompt_words(self.vocabulary, ids)) if part)

    def questions(
        self, texts: Sequence[str], prompt: str | None = None, draw: int = 0, index: Sequence[int] | None = None
    ) -> list[Question]:
        """Each text with the prompt and its demonstrations, the same in training and in use; `index`: its rows."""
        prompt = self.prompt if prompt is None else prompt
        words = self.label_words
        vectors = self._embed(list(texts)) if self._nearest else None
        found = []
        for row, text in enumerate(texts):
            if vectors is not None and self._vectors is not None:
                places = nearest_demonstrations(text, vectors[row], self.demo_texts, self._vectors, self.k_demo)
            else:
                places = draw_demonstrations(
                    text, self.demo_texts, self.demo_labels, self.k_demo, self.seed, draw=draw
                )
            demos = tuple((self.demo_texts[place], words[self.demo_labels[place]]) for place in places)
            found.append(Question(text, prompt, demos, row if index is None else int(index[row])))
        return found

    def set_demonstrations(self, texts: Sequence[str], labels: Sequence[int]) -> None:
        """Replace the pool that demonstrations are drawn from."""
        self.demo_texts, self.demo_labels = list(texts), [int(label) for label in labels]
        self._vectors = None

    @property
    def _nearest(self) -> bool:
        return self.demo_strategy == "nearest" and self.k_demo > 0 and bool(self.demo_texts)

    def _embed(self, texts: list[str]) -> np.ndarray:
        embed = self.embedder or functools.partial(kept_vectors, self.lm)
        if self._vectors is None:
            self._vectors = np.asarray(embed(self.demo_texts), dtype=np.float64)
        return np.asarray(embed(texts), dtype=np.float64)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Posteriors `(n, C)`, float64; one question for each text.

        Raises:
            TypeError: If `texts` is a single text.
            BudgetExceeded: With `partial`, log-posteriors with rows of NaN.
        """
        if isinstance(texts, str):
            raise TypeError("Give a list of texts, not a single text.")
        return np.exp(self._scorer.log_probs(self.questions(list(texts))))

    def __call__(self, texts: str | Sequence[str]) -> list[dict[str, Any]]:
        """`[{"label": name, "score": probability}, ...]`, as a text-classification pipeline gives."""
        probs = self.predict_proba([texts] if isinstance(texts, str) else texts)
        return [{"label": self.labels[row.argmax()], "score": float(row.max())} for row in probs]

    # ---- files and Hub ----------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write prompt, candidates, demonstrations, distribution; not the language model, nor the pseudo-labels."""
        from safetensors.torch import save_file

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        values = {name: getattr(self, name) for name in _SAVED} | {"lm": self._lm_config(), "hf_labels": SLUG}
        text = json.dumps(values, indent=1, ensure_ascii=False)
        (place / CONFIG).write_text(text + "\n", encoding="utf-8")
        theta = np.zeros((0, 0)) if self.theta is None else np.asarray(self.theta, dtype=np.float64)
        save_file({"theta": torch.from_numpy(theta.copy())}, place / WEIGHTS)

    def _lm_config(self) -> dict[str, Any]:
        config = {name: value for name, value in self.lm.get_config().items() if name not in _OF_THE_MACHINE}
        local = Path(str(config["model_id"])).exists() or "gguf_file" in self.lm.get_config()
        return config | {"model_id": Path(str(config["model_id"])).name, "local": True} if local else config

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        lm: BlackBoxLM | None = None,
        *,
        revision: str | None = None,
        embedder: Callable[[list[str]], Any] | None = None,
    ) -> PromptClassifier:
        """Load what `save_pretrained` or `push_to_hub` wrote.

        Args:
            folder (`str`): Hub id or folder.
            lm ([`BlackBoxLM`], *optional*): The language model; by default the one that the file names is loaded.
            revision (`str`, *optional*): Of the repository.
            embedder (`Callable`, *optional*): See the class.

        Raises:
            FileNotFoundError: If there is no classifier in the folder.
            ValueError: If the file is not ours, or `lm` is needed because the model was local or made in code.
        """
        from safetensors.torch import load_file

        place = Path(folder)
        if not place.is_dir():
            from huggingface_hub import snapshot_download

            place = Path(snapshot_download(str(folder), revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
        if not (place / CONFIG).is_file():
            raise FileNotFoundError(f"There is no {CONFIG} in {folder}: it holds no prompt classifier.")
        values = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("hf_labels", None) != SLUG:
            raise ValueError(f"{CONFIG} in {folder} was not written by a prompt classifier.")
        saved = values.pop("lm")
        if lm is None:
            lm = _made_again(saved)
        elif lm.model_id != saved["model_id"] and not saved.get("local"):
            logger.warning("The prompt was learned for %s, not for %s.", saved["model_id"], lm.model_id)
        theta = load_file(place / WEIGHTS)["theta"].numpy()
        values |= {"labels": tuple(values["labels"]), "label_words": tuple(values["label_words"])}
        return cls(lm, theta=theta if theta.size else None, embedder=embedder, **values)

    def card(self, model_id: str) -> Any:
        """The model card."""
        from hf_labels.hub_cards import render_card

        saved = self._lm_config()
        facts = {"prompt": self.prompt or "(empty)", "demonstrations in the pool": len(self.demo_texts)}
        facts |= {"demonstrations per question": self.k_demo, "stopped by the budget": self.stopped_early}
        base = None if saved.get("local") or saved["type"] == "ScriptedLM" else saved["model_id"]
        facts |= {"language model": saved["model_id"]}
        return render_card(
            SLUG, model_id=model_id, base_model=base, labels=list(self.labels), training=self.settings, extra=facts
        )

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> Any:
        """Push the classifier with its card in one commit. The demonstrations are texts of your corpus.

        Args:
            repo_id (`str`): Hub id of a model; made when it is not there.
            private (`bool`, *optional*), token (`str`, *optional*): As in `HfApi.create_repo`.

        Returns:
            `CommitInfo` of the upload.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            self.save_pretrained(place)
            (Path(place) / "README.md").write_text(str(self.card(repo_id)), encoding="utf-8")
            return api.upload_folder(repo_id=repo_id, folder_path=place, commit_message="Upload prompt classifier")

    def push_pseudo_labels(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> Any:
        """Push the pseudo-labelled corpus as a data set whose card says that a model wrote the labels.

        Raises:
            ValueError: If this classifier was loaded and has no corpus.
        """
        from huggingface_hub import DatasetCard, HfApi

        from hf_labels.hub_cards import LabelColumn, render_dataset_card

        if self.pseudo_labels is None:
            raise ValueError("`pseudo_labels` is None: a loaded classifier has no corpus. Push it after `fit`.")
        self.pseudo_labels.push_to_hub(repo_id, private=private, token=token)
        rounds = self.pseudo_labels["round"][:]
        card = render_dataset_card(
            repo_id,
            tool="hf_labels.UnsupervisedPromptLearner",
            columns=[
                LabelColumn("labels", "hard", "the class that the language model gives", self.labels),
                LabelColumn("confidence", "", "its probability over the label words when the label was given"),
                LabelColumn("round", "", "0: among the first reliable ones; r: admitted in round r; -1: never"),
            ],
            label_assumptions="The classes that the model is sure of are mostly right, and their errors differ.",
            limits="No person has checked these labels; errors of the model repeat themselves in all rounds.",
            slug=SLUG,
            labelled_by=str(self._lm_config()["model_id"]),
            num_rows=len(self.pseudo_labels),
            settings=self.settings,
            report={"reliable at first": sum(r == 0 for r in rounds), "admitted later": sum(r > 0 for r in rounds)},
            task_categories="text-classification",
        )
        written = DatasetCard.load(repo_id, token=token).data.to_dict()  # the columns, as `datasets` describes them
        for name in ("configs", "dataset_info"):
            if name in written:
                card.data[name] = written[name]
        return HfApi(token=token).upload_file(
            path_or_fileobj=str(card).encode(), path_in_repo="README.md", repo_id=repo_id, repo_type="dataset"
        )


def _made_again(saved: dict[str, Any]) -> BlackBoxLM:
    if saved.get("local") or saved["type"] == "ScriptedLM":
        raise ValueError(f"The language model {saved['model_id']!r} was local or made in code: give it as `lm`.")
    return BlackBoxLM.from_config(saved)
