"""Learn a prompt and pseudo-labels together from unlabelled text, with a language model that is only asked questions.

learner = UnsupervisedPromptLearner(lm, ["negative", "positive"], "{prompt} {demos}\\nReview: {text}\\nSentiment:")
classifier = learner.fit(texts)
classifier.prompt, classifier(["great film"]), classifier.pseudo_labels
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_labels.labels.kinds import check_column, check_values
from hf_labels.labels.unsupervised_prompt_learning import STRATEGIES, PromptTemplate, candidate_vocabulary
from hf_labels.labels.verbalize import LabelSpace
from hf_labels.lm.base import BlackBoxLM
from hf_labels.lm.prompted import PromptScorer, answers_kept
from hf_labels.lm.scoring import verbalize

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = PromptTemplate().template
_CHOICES = {"param": ("logits", "simplex"), "loss": ("ce", "hinge"), "selection": ("balanced", "threshold")}
_LOWEST = {"prompt_length": 0, "search_space": 1, "sample_size": 2, "batch_size": 1, "max_steps": 0, "top_k": 1}
_LOWEST |= {"k_demo": 0, "relabel_every": 1, "logging_steps": 1}


@dataclass
class UnsupervisedPromptLearningArguments:
    """Arguments of [`UnsupervisedPromptLearner`].

    Calls of the model: at most `max_steps * sample_size * batch_size`, plus the corpus once for each round of
    labelling and once in the end; repeated questions are free.

    Parameters:
        output_dir (`str`, *optional*): Keeps all answers (unless the model has a `cache_dir`): the same run with the
            same folder asks nothing twice, and so goes on where it was interrupted.
        prompt_length (`int`, *optional*, defaults to 5): m, tokens of the prompt; 0 learns none.
        search_space (`int`, *optional*, defaults to 50): N, candidates taken from the texts.
        sample_size (`int`, *optional*, defaults to 8): S, prompts drawn for each step; at least 2.
        batch_size (`int`, *optional*, defaults to 16): Texts in each step.
        max_steps (`int`, *optional*, defaults to 30): T.
        param (`str`, *optional*, defaults to `"logits"`): `"logits"` with Adam, or `"simplex"` (the form of BDPL: SGD
            on the probabilities with projection).
        learning_rate (`float`, *optional*): Defaults to 0.1 for `"logits"`, 0.05 for `"simplex"`.
        max_grad_norm (`float`, *optional*, defaults to 3.0): The gradient is clipped to it.
        loss (`str`, *optional*, defaults to `"ce"`): `"ce"` or `"hinge"` with `margin`.
        margin (`float`, *optional*, defaults to 1.0): Of the hinge.
        selection (`str`, *optional*, defaults to `"balanced"`): Reliable texts are the `top_k` surest of each class,
            or (`"threshold"`, the paper's form) all at or above `confidence_threshold`.
        confidence_threshold (`float`, *optional*, defaults to 0.9): tau in the paper, in [0, 1].
        top_k (`int`, *optional*, defaults to 8): Texts of each class that are taken first, and in each further round.
        k_demo (`int`, *optional*, defaults to 4): Demonstrations in each question.
        demo_strategy (`str`, *optional*, defaults to `"random"`): `"random"` (classes in turn) or `"nearest"` (by
            embedding).
        resample_demos (`bool`, *optional*, defaults to `False`): Draw other demonstrations in each step. Off, a text
            keeps its own until the pool grows, and many questions repeat.
        train_with_demos (`bool`, *optional*, defaults to `True`): Off, the prompt is trained without demonstrations
            (an ablation: training and use then differ).
        relabel_every (`int`, *optional*, defaults to 5): Steps between rounds of labelling, and between dev losses.
        revise_reliable (`bool`, *optional*, defaults to `False`): Label the first reliable texts again, too.
        dev_share (`float`, *optional*, defaults to 0.25): Part of the first reliable texts of each class that only
            chooses among prompts (by loss on their pseudo-labels), in [0, 1). 0 keeps the last prompt.
        initial_prompt (`str`, *optional*): Fixed words before the learned ones, also in the first labelling.
        min_count, min_pmi, min_frequency: See [`candidate_vocabulary`].
        logging_steps (`int`, *optional*, defaults to 1): Steps between entries of the log.
        seed (`int`, *optional*, defaults to 0): Of all draws.

    Raises:
        ValueError: For a value out of range; names it.
    """

    output_dir: str | None = None
    prompt_length: int = 5
    search_space: int = 50
    sample_size: int = 8
    batch_size: int = 16
    max_steps: int = 30
    param: str = "logits"
    learning_rate: float | None = None
    max_grad_norm: float = 3.0
    loss: str = "ce"
    margin: float = 1.0
    selection: str = "balanced"
    confidence_threshold: float = 0.9
    top_k: int = 8
    k_demo: int = 4
    demo_strategy: str = "random"
    resample_demos: bool = False
    train_with_demos: bool = True
    relabel_every: int = 5
    revise_reliable: bool = False
    dev_share: float = 0.25
    initial_prompt: str = ""
    min_count: int = 5
    min_pmi: float = 1.0
    min_frequency: int = 5
    logging_steps: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _LOWEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"`{name}` must be an integer of at least {low}, got {value!r}.")
        for name, allowed in (_CHOICES | {"demo_strategy": STRATEGIES}).items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be {' or '.join(map(repr, allowed))}, got {getattr(self, name)!r}.")
        if not 0 <= self.confidence_threshold <= 1:
            raise ValueError(f"`confidence_threshold` must be in [0, 1], got {self.confidence_threshold}.")
        if not 0 <= self.dev_share < 1:
            raise ValueError(f"`dev_share` must be in [0, 1), got {self.dev_share}.")
        for name in ("learning_rate", "max_grad_norm", "margin"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")

    @property
    def step_size(self) -> float:
        """The learning rate, or the default of the parametrisation."""
        return self.learning_rate or (0.1 if self.param == "logits" else 0.05)

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, without the folder."""
        fields = dataclasses.fields(self)
        values = {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}
        return {name: value for name, value in values.items() if name != "output_dir"}


class UnsupervisedPromptLearner:
    """Learns a discrete prompt and pseudo-labels of unlabelled texts together, asking a model for label scores only.

    First every text is labelled without demonstrations; the surest ones are the reliable set. Then, in each step, some
    prompts are drawn from a distribution over candidate tokens, the same mini-batch is labelled under each of them
    with demonstrations from the reliable set, and the distribution moves towards the prompts with the lower loss
    (policy gradient, mean loss as baseline). Every few steps the other texts are labelled again and the surest join
    the pool.

    | input | |
    | --- | --- |
    | `text` | one text per row; no label is read |

    Parameters:
        lm ([`BlackBoxLM`]): Any backend that scores labels; its budget and its cache are honoured.
        labels (list of `str` or [`LabelSpace`]): At least two class names.
        template (`str`, *optional*): See [`PromptTemplate`]. Without `{demos}` only [`EmbeddingLM`] sees them.
        args ([`UnsupervisedPromptLearningArguments`], *optional*): Settings.
        label_words (list of `str`, *optional*): What the model scores, one for each class. By default the names, with
            a leading space if the template ends without one.
        vocabulary (list of `str`, *optional*): Candidates for the prompt; by default [`candidate_vocabulary`].
        callbacks (list of `TrainerCallback`, *optional*): Get `on_train_begin`, `on_log`, `on_step_end`,
            `on_train_end`; may set `control.should_training_stop`.
        embedder (`Callable`, *optional*): Texts -> `(n, D)`, for `demo_strategy="nearest"`; defaults to `lm.embed`.

    Raises:
        ValueError: Fewer than two labels, double labels or label words, an empty vocabulary, a template without the
            fields that the settings need.
        UnsupportedCapability: If the model cannot score, or cannot embed and must.

    Source: Zhang et al. 2024, arXiv:2410.03124v1; its optimiser is BDPL, Diao et al. 2023, arXiv:2201.08531.
    """

    def __init__(
        self,
        lm: BlackBoxLM,
        labels: Sequence[str] | LabelSpace,
        template: str = DEFAULT_TEMPLATE,
        args: UnsupervisedPromptLearningArguments | None = None,
        *,
        label_words: Sequence[str] | None = None,
        vocabulary: Sequence[str] | None = None,
        callbacks: Sequence[Any] = (),
        embedder: Callable[[list[str]], Any] | None = None,
    ) -> None:
        self.lm, self.args = lm, args or UnsupervisedPromptLearningArguments()
        space = labels if isinstance(labels, LabelSpace) else LabelSpace.from_names(labels)
        if len(space) < 2:
            raise ValueError(f"`labels` needs at least two classes, got {len(space)}: {', '.join(space.names)}.")
        self.labels = space.names
        style = "plain" if template[-1:].isspace() else "space"
        words = verbalize(list(space.names), style) if label_words is None else list(label_words)
        if len(words) != len(self.labels):
            raise ValueError(f"`label_words` needs one word for each of {len(self.labels)} labels, got {len(words)}.")
        self.template, form = template, PromptTemplate(template)
        scorer = PromptScorer(lm, words, form)
        self.label_words = scorer.label_words
        if (self.args.prompt_length or self.args.initial_prompt) and not form.has_prompt:
            raise ValueError(
                "`template` has no `{prompt}` for `initial_prompt` and the learned tokens. Add it, or set "
                "`prompt_length=0` and no `initial_prompt`."
            )
        if self.args.k_demo and not scorer.takes_demos:
            raise ValueError("`template` has no `{demos}` for the demonstrations. Add it, or set `k_demo=0`.")
        if self.args.k_demo and self.args.demo_strategy == "nearest" and embedder is None:
            lm._need("embed")
        self.vocabulary = None if vocabulary is None else _checked_vocabulary(vocabulary)
        self.callbacks, self.embedder = list(callbacks), embedder

    def fit(self, dataset: Any, text_column: str = "text") -> Any:
        """Learn from unlabelled texts.

        Args:
            dataset (list of `str` or `datasets.Dataset`): The corpus, n texts.
            text_column (`str`, *optional*, defaults to `"text"`): Of a data set.

        Returns:
            [`PromptClassifier`]: With `pseudo_labels` of the whole corpus. If the model's budget ends, it is what was
            learned until then, with `stopped_early=True`; texts that were never asked have label -1, confidence 0.

        Raises:
            ValueError: For an empty corpus, an empty text, no frequent enough candidates, or `k_demo` larger than the
                pool allows.
            ReliableSetEmpty: If no text reaches `confidence_threshold`; says how near the surest one is.
            BudgetExceeded: If the budget allows no answer at all.
        """
        from hf_labels.lm.unsupervised_prompt_run import PromptRun

        texts = _texts(dataset, text_column)
        vocabulary = self._candidates(texts)
        folder = None if self.args.output_dir is None else Path(self.args.output_dir) / "answers"
        with answers_kept(self.lm, folder):
            return PromptRun(self, texts, vocabulary).run()

    def _candidates(self, texts: list[str]) -> list[str]:
        args = self.args
        if not args.prompt_length:
            return []
        if self.vocabulary is not None:
            return self.vocabulary
        rules = {name: getattr(args, name) for name in ("min_count", "min_pmi", "min_frequency")}
        found = candidate_vocabulary(texts, args.search_space, **rules)
        if not found:
            raise ValueError(
                f"The vocabulary is empty: no segment is seen more than `min_frequency`={args.min_frequency} times in "
                f"{len(texts)} texts. Lower it, or give `vocabulary`."
            )
        return found


def _checked_vocabulary(vocabulary: Sequence[str]) -> list[str]:
    words = list(vocabulary)
    if not words:
        raise ValueError("`vocabulary` is empty: give at least one candidate, or None to take them from the texts.")
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word.strip() or words.index(word) != place:
            raise ValueError(f"`vocabulary` must hold different texts that are not empty, got {word!r} at {place}.")
    return words


def _texts(dataset: Any, column: str) -> list[str]:
    if isinstance(dataset, str):
        raise TypeError("Give a list of texts or a data set, not a single text.")
    if len(dataset) == 0:
        raise ValueError("The corpus is empty: at least one text per class is needed.")
    if hasattr(dataset, "column_names"):
        check_column(dataset, "text", column)
        return list(dataset.with_format(None)[column][:])
    texts = list(dataset)
    check_values(texts, "text", column=column)
    return texts
