"""A zero-shot pipeline with several hypotheses per label, rejection, seen and unseen labels, and several labels.

`import hf_labels.models.zero_shot_tc` registers the task `"hypothesis-zero-shot"` for `transformers.pipeline`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification, ZeroShotClassificationPipeline
from transformers.pipelines import PIPELINE_REGISTRY

from hf_labels.data.zero_shot_tc_hypotheses import complete_hypotheses
from hf_labels.labels.verbalize import DEFAULT_TEMPLATE
from hf_labels.labels.zero_shot_tc import (
    SCORES,
    DecisionRule,
    decide,
    ensemble_probs,
    entailment_probs,
    label_scores,
    pipeline_scores,
)

logger = logging.getLogger(__name__)

TASK = "hypothesis-zero-shot"
_RULE = tuple(DecisionRule.__dataclass_fields__)
_OWN = ("candidate_labels", "hypotheses", "hypothesis_template", "score", "none_label", "seen_labels")
SETTINGS = (*_OWN, *(name for name in _RULE if name != "reject"), "prefilter_k")
"""What a call, the constructor and `config.zero_shot` may set."""

_UNSAVED = ("prefilter", "return_hypothesis_scores")


@dataclass(frozen=True)
class Plan:
    """What one call asks for, checked: labels in order, their H hypotheses, whose they are, and the rule."""

    labels: tuple[str, ...]
    hypotheses: tuple[str, ...]
    owner: tuple[int, ...]
    seen: tuple[int, ...]
    rule: DecisionRule
    score: str = "softmax"
    none_label: str | None = None
    prefilter_k: int | None = None
    prefilter: Callable[[list[str]], Any] | None = None
    return_hypothesis_scores: bool = False


def make_plan(
    candidate_labels: Sequence[str] | str | None = None,
    hypotheses: Mapping[str, Sequence[str]] | None = None,
    hypothesis_template: str = DEFAULT_TEMPLATE,
    score: str = "softmax",
    none_label: str | None = None,
    seen_labels: Sequence[str] = (),
    prefilter_k: int | None = None,
    prefilter: Callable[[list[str]], Any] | None = None,
    return_hypothesis_scores: bool = False,
    **rule: Any,
) -> Plan:
    """Check the settings of a call; see [`HypothesisZeroShotPipeline`] for them and the errors."""
    if isinstance(candidate_labels, str):
        candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
    if candidate_labels is None:
        candidate_labels = list(hypotheses or ())
    sentences = complete_hypotheses(candidate_labels, hypotheses, hypothesis_template)
    labels = tuple(sentences)
    if score not in SCORES:
        raise ValueError(f"`score` must be one of {', '.join(SCORES)}, got {score!r}.")
    if score == "pipeline" and any(len(lines) > 1 for lines in sentences.values()):
        raise ValueError("`score='pipeline'` has one hypothesis per label. Use 'softmax' or 'max' for several.")
    if none_label is not None and none_label in labels:
        raise ValueError(f"`none_label` {none_label!r} is also a candidate label. Take it out of `candidate_labels`.")
    strange = [name for name in seen_labels if name not in labels]
    if strange:
        raise ValueError(f"`seen_labels` names {strange[0]!r}, which is not a candidate label: {', '.join(labels)}.")
    if prefilter_k is not None and (prefilter is None or prefilter_k < 1):
        raise ValueError(f"`prefilter_k` (got {prefilter_k}) must be 1 or more and needs `prefilter`, an encoder.")
    flat = [(place, text) for place, name in enumerate(labels) for text in sentences[name]]
    return Plan(
        labels,
        tuple(text for _, text in flat),
        tuple(place for place, _ in flat),
        tuple(labels.index(name) for name in dict.fromkeys(seen_labels)),
        DecisionRule(reject=none_label is not None, **rule),
        score,
        none_label,
        prefilter_k,
        prefilter,
        return_hypothesis_scores,
    )


def find_entailment_id(config: Any) -> int | None:
    """Class whose name starts with "entail", by `label2id`, else by `id2label`; `None` when there is none."""
    tables = getattr(config, "label2id", None) or {}, getattr(config, "id2label", None) or {}
    named = [*tables[0].items(), *((name, place) for place, name in tables[1].items())]
    return next((int(place) for name, place in named if str(name).lower().startswith("entail")), None)


class HypothesisZeroShotPipeline(ZeroShotClassificationPipeline):
    """Zero-shot classification with an entailment model; a superset of the stock `zero-shot-classification`.

    ```python
    pipe = pipeline("hypothesis-zero-shot", model="facebook/bart-large-mnli")
    pipe(
        texts,
        hypotheses={"joy": ["This person feels joyful.", "..."], "anger": ["This person feels angry."]},
        none_label="noemo",
        seen_labels=["joy"],
        decision="two_phase",
        seen_margin=0.05,
    )
    ```

    Settings come from the call, else from the constructor, else from `config.zero_shot` of the model, where
    [`save_settings`] and [`~hf_labels.trainers.zero_shot_tc.EntailmentTrainer`] put them.

    Args of a call:
        texts (`str`, or list, generator or data set column of `str`): An empty text gets the none label, score 0 and a
            warning.
        candidate_labels (list of `str`, or `str` with commas, *optional*): Default: the labels of `hypotheses`.
        hypotheses (`dict[str, list[str]]`, *optional*): Sentences that claim a label. A label without gets the
            template.
        hypothesis_template (`str`, *optional*, defaults to `"This example is {}."`): With one `{}`.
        score (`str`, *optional*, defaults to `"softmax"`): Probability of entailment: `"softmax"` over all classes,
            `"max"` against the strongest other class, or `"pipeline"`: the numbers of the stock pipeline.
        none_label (`str`, *optional*): Returned when nothing is above the threshold. Without it, single-label
            texts always get a label.
        aggregate, threshold, seen_margin, seen_threshold, decision, multi_label: See
            [`~hf_labels.labels.zero_shot_tc.DecisionRule`].
        seen_labels (list of `str`, *optional*): Labels that the model was trained on.
        prefilter (`Callable`, *optional*), prefilter_k (`int`, *optional*): Encoder of texts (`texts -> (N, D)`), and
            how many labels go on to the entailment model: those nearest by cosine. Approximate: the others score 0.
            For more than about 50 labels.
        return_hypothesis_scores (`bool`, *optional*): Adds `hypothesis_scores`, one per hypothesis.
        batch_size (`int`, *optional*): Pairs per forward. Lists are run in the order of their length, to pad less.

    Returns:
        A `dict` per text: `sequence`; `labels` and `scores`, best first, as in the stock pipeline; and `label`: the
        decision, a name, the none label, or a list of names with `multi_label` (`[none_label]` when empty, or `[]`
        without a none label).

    Constructor: `entailment_id` (`int`, *optional*) says which class is entailment when no name tells.

    Raises:
        ValueError: No entailment class in the model (lists `label2id`); no label, double labels, a template without
            `{}`, hypotheses of an unknown label, seen labels that are no candidates, a setting out of range, NaN in
            the logits (names the text).

    Cost: N texts times H hypotheses forward passes of the model.

    Source: Yin, Hay and Roth, EMNLP 2019 (arXiv:1909.00161).
    """

    def __init__(self, *args: Any, entailment_id: int | None = None, **kwargs: Any):
        model = kwargs.get("model", args[0] if args else None)
        config = getattr(model, "config", None)
        named = find_entailment_id(config)
        self._entailment_id = named if entailment_id is None else entailment_id
        classes = int(getattr(config, "num_labels", 0) or 0)
        if self._entailment_id is None or not 0 <= self._entailment_id < classes:
            raise ValueError(
                f"Which class is entailment? None of the model's label names starts with `entail`: "
                f"{getattr(config, 'label2id', None)} (`entailment_id` given: {entailment_id}). Pass `entailment_id=` "
                "of an entailment (NLI) model."
            )
        self._defaults: dict[str, Any] = {}
        self._given = set(SETTINGS + _UNSAVED)
        self._texts_done = 0
        self._vectors: dict[tuple[str, ...], np.ndarray] = {}
        super().__init__(*args, **kwargs)

    @property
    def entailment_id(self) -> int:
        """Class of entailment."""
        assert self._entailment_id is not None  # checked when it was made
        return self._entailment_id

    def _sanitize_parameters(self, plan: Plan | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        if plan is not None:
            return {"plan": plan}, {}, {"plan": plan}
        strange = sorted(set(kwargs) - self._given)
        if strange:
            raise TypeError(f"{type(self).__name__} has no setting {strange[0]!r}; there are: {', '.join(SETTINGS)}.")
        self._defaults.update(kwargs)  # given to the constructor
        return {}, {}, {}

    def plan(self, **settings: Any) -> Plan:
        """The settings of a call joined with those of the constructor and of the model's config, checked."""
        strange = sorted(set(settings) - self._given)
        if strange:
            raise TypeError(f"{type(self).__name__} has no setting {strange[0]!r}; there are: {', '.join(SETTINGS)}.")
        saved = getattr(self.model.config, "zero_shot", None) or {}
        saved = {name: value for name, value in saved.items() if name in SETTINGS}
        joined = {**saved, **self._defaults, **settings}
        names = settings.get("candidate_labels", settings.get("hypotheses"))
        if names:  # the call names its labels: what is kept of others does not concern it
            names = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
            joined["candidate_labels"] = names
            for key in ("hypotheses", "seen_labels"):
                if key not in settings and joined.get(key):
                    kept = [name for name in joined[key] if name in names]
                    joined[key] = {name: joined[key][name] for name in kept} if key == "hypotheses" else kept
        return make_plan(**joined)

    def save_settings(self, **settings: Any) -> None:
        """Put settings into `model.config.zero_shot`, so that `save_pretrained` and `push_to_hub` carry them."""
        plan = self.plan(**settings)
        self.model.config.zero_shot = plan_settings(plan)

    def __call__(self, texts: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if len(args) > 1 or (args and "candidate_labels" in kwargs):
            raise ValueError(f"Give the candidate labels once; got {args}.")
        if args:
            kwargs["candidate_labels"] = args[0]
        loader: dict[str, Any] = {key: kwargs.pop(key) for key in ("batch_size", "num_workers") if key in kwargs}
        plan = self.plan(**kwargs)
        self._texts_done = 0
        if isinstance(texts, str):
            return self._run(texts, plan, {})
        if isinstance(texts, Sequence):  # a list, a tuple, a column of a data set
            texts = list(texts)
            if not texts:
                raise ValueError("There are no texts: give at least one.")
            if (loader.get("batch_size") or self._batch_size or 1) > 1:
                order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
                found = self._run([texts[row] for row in order], plan, loader, order)
                place = {row: number for number, row in enumerate(order)}
                return [found[place[row]] for row in range(len(texts))]
        return self._run(texts, plan, loader)

    def _run(self, texts: Any, plan: Plan, loader: Mapping[str, Any], order: Sequence[int] | None = None) -> Any:
        self._order = order
        found = super(ZeroShotClassificationPipeline, self).__call__(texts, plan=plan, **loader)
        return list(found) if isinstance(texts, list) else found

    def preprocess(self, inputs: str, plan: Plan):  # type: ignore[override]
        """One pair per hypothesis (of the short-listed labels)."""
        chosen = list(range(len(plan.hypotheses)))
        if plan.prefilter is not None and plan.prefilter_k is not None and inputs.strip():
            near = set(self._nearest(inputs, plan))
            chosen = [place for place in chosen if plan.owner[place] in near]
        for place in chosen:
            pair = self._parse_and_tokenize([[inputs, plan.hypotheses[place]]])
            yield {"candidate_label": place, "sequence": inputs, "is_last": place == chosen[-1], **pair}

    def postprocess(self, model_outputs: list[dict[str, Any]], plan: Plan) -> dict[str, Any]:  # type: ignore[override]
        number, self._texts_done = self._texts_done, self._texts_done + 1
        text, places = model_outputs[0]["sequence"], [output["candidate_label"] for output in model_outputs]
        if not text.strip():
            logger.warning("Text %d is empty: it gets no label.", self._number(number))
            return self._result(text, plan, np.zeros(len(plan.hypotheses)), np.zeros(len(plan.labels)), empty=True)
        logits = np.concatenate([output["logits"].float().numpy() for output in model_outputs])
        if not np.isfinite(logits).all():
            raise ValueError(
                f"The model gave NaN or infinite logits for text {self._number(number)} ({text[:40]!r}). Run it in "
                "float32, or leave the text out."
            )
        probs = np.zeros(len(plan.hypotheses))
        if plan.score == "pipeline":  # one hypothesis per label
            probs[places] = pipeline_scores(logits[None], self.entailment_id, plan.rule.multi_label)[0]
        else:
            probs[places] = entailment_probs(logits, self.entailment_id, plan.score)
        return self._result(text, plan, probs, label_scores(probs[None], plan.owner, plan.rule.aggregate)[0])

    def _number(self, number: int) -> int:
        return number if self._order is None else self._order[number]

    def _result(
        self, text: str, plan: Plan, probs: np.ndarray, scores: np.ndarray, empty: bool = False
    ) -> dict[str, Any]:
        order = np.argsort(-scores, kind="stable")
        found = {
            "sequence": text,
            "labels": [plan.labels[place] for place in order],
            "scores": scores[order].tolist(),
            "label": [] if plan.rule.multi_label else plan.none_label,
        }
        if not empty:
            found["label"] = name_decisions(decide(probs[None], plan.owner, plan.seen, plan.rule), plan)[0]
        elif plan.rule.multi_label and plan.none_label is not None:
            found["label"] = [plan.none_label]
        return found | ({"hypothesis_scores": probs.tolist()} if plan.return_hypothesis_scores else {})

    def _nearest(self, text: str, plan: Plan) -> list[int]:
        """Labels whose hypotheses are nearest to the text, by the cosine of the encoder that was given."""
        assert plan.prefilter is not None and plan.prefilter_k is not None
        encode = getattr(plan.prefilter, "encode", plan.prefilter)
        if plan.hypotheses not in self._vectors:
            self._vectors = {plan.hypotheses: _unit(np.asarray(encode(list(plan.hypotheses))))}
        cosine = _unit(np.asarray(encode([text]))) @ self._vectors[plan.hypotheses].T
        best = label_scores(cosine, plan.owner, "max")[0]
        return np.argsort(-best, kind="stable")[: plan.prefilter_k].tolist()


def name_decisions(found: np.ndarray, plan: Plan) -> list[Any]:
    """Decisions of [`~hf_labels.labels.zero_shot_tc.decide`] in words."""
    if found.ndim == 1:
        return [plan.none_label if label < 0 else plan.labels[label] for label in found]
    nothing = [] if plan.none_label is None else [plan.none_label]
    return [[plan.labels[label] for label in np.flatnonzero(row)] or list(nothing) for row in found]


def plan_settings(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values, for `config.zero_shot`."""
    texts: dict[str, list[str]] = {name: [] for name in plan.labels}
    for place, text in zip(plan.owner, plan.hypotheses, strict=True):
        texts[plan.labels[place]].append(text)
    rule = {name: value for name, value in asdict(plan.rule).items() if name != "reject"}
    own = {"candidate_labels": list(plan.labels), "hypotheses": texts, "score": plan.score}
    return own | {"none_label": plan.none_label, "seen_labels": [plan.labels[place] for place in plan.seen], **rule}


def classify_with_ensemble(
    pipes: Sequence[HypothesisZeroShotPipeline], texts: Sequence[str], *, ensemble: str = "mean", **settings: Any
) -> list[dict[str, Any]]:
    """Results of several entailment models together (RTE, MNLI and FEVER in the paper).

    Args:
        pipes: Pipelines; the settings come from the call and the first of them.
        texts (list of `str`): N texts.
        ensemble (`str`, *optional*, defaults to `"mean"`): See [`~hf_labels.labels.zero_shot_tc.ensemble_probs`].
        settings: As in a call of the pipeline.

    Returns:
        As a call of the pipeline.

    Raises:
        ValueError: No pipeline, or `score="pipeline"`, whose numbers are no probabilities of entailment.
    """
    if not pipes:
        raise ValueError("`pipes` is empty: give at least one pipeline.")
    loader = {name: settings.pop(name) for name in ("batch_size", "num_workers") if name in settings}
    plan = pipes[0].plan(**settings)
    if plan.score == "pipeline":
        raise ValueError("`score='pipeline'` gives no probabilities to average. Use 'softmax' or 'max'.")
    asked = plan_settings(plan) | {"return_hypothesis_scores": True}
    runs = [pipe(list(texts), **asked, **loader) for pipe in pipes]
    probs = ensemble_probs([[row["hypothesis_scores"] for row in run] for run in runs], ensemble)
    probs[[not text.strip() for text in texts]] = 0
    scores = label_scores(probs, plan.owner, plan.rule.aggregate)
    return [
        pipes[0]._result(text, plan, row, score, empty=not text.strip())
        for text, row, score in zip(texts, probs, scores, strict=True)
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=HypothesisZeroShotPipeline,
        pt_model=(AutoModelForSequenceClassification,),
        type="text",
    )
    # With it, `save_pretrained` would copy this file beside the model, and loading would ask for `trust_remote_code`.
    delattr(HypothesisZeroShotPipeline, "_registered_impl")
