"""`KGZeroShotClassifier`: classes without examples, from what a knowledge graph says about them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_labels.data.encoders import Backbone, TextEncoder
from hf_labels.labels.kg_zero_shot import blend_prototypes, check_matrix, class_means, unit_rows
from hf_labels.models.frozen_backbone import FrozenBackboneMixin
from hf_labels.models.kg_zero_shot_propagation import DGPConfig, DGPModel

logger = logging.getLogger(__name__)

METHODS = ("ridge", "ridge_forward", "eszsl", "devise", "dgp", "gaussian", "fclswgan")
PROTOTYPES = ("ridge",)  # class rows are prototypes of features, which examples can be mixed into


@strict
class KGZeroShotConfig(PreTrainedConfig):
    """Settings of [`KGZeroShotClassifier`].

    Parameters:
        method (`str`, *optional*, defaults to `"ridge"`): `"ridge"` (semantics to features), `"ridge_forward"`,
            `"eszsl"`, `"devise"`, `"dgp"`, `"gaussian"` or `"fclswgan"`.
        hidden_size (`int`, *optional*, defaults to 384): D, width of the features.
        semantic_size (`int`, *optional*, defaults to 50): d, width of the classes' vectors.
        seen (`list[str]`, *optional*): Classes that had examples.
        nodes (`list[str]`, *optional*): Node of each class, in the order of `id2label`.
        graph_nodes (`list[str]`, *optional*), propagation (`dict`, *optional*): Of the graph behind `"dgp"`.
        calibration (`float`, *optional*, defaults to 0.0): Taken off the scores of seen classes.
        backbone, backbone_revision, backbone_fingerprint, text_pooling, template, max_length: The frozen encoder.
    """

    model_type = "hfl-kg-zero-shot"

    method: str = "ridge"
    hidden_size: int = 384
    semantic_size: int = 50
    seen: list[str] | None = None
    nodes: list[str] | None = None
    graph_nodes: list[str] | None = None
    propagation: dict[str, Any] | None = None
    calibration: float = 0.0
    backbone: str | None = None
    backbone_revision: str | None = None
    backbone_fingerprint: str | None = None
    text_pooling: str = "mean"
    template: str | None = None
    max_length: int = 128

    def __post_init__(self, **kwargs: Any) -> None:
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {self.method!r}.")
        super().__post_init__(**kwargs)

    @property
    def mapped(self) -> bool:
        """Features are mapped to the space of the semantics; else classes have rows in the space of the features."""
        return self.method in ("ridge_forward", "eszsl", "devise")


class KGZeroShotClassifier(FrozenBackboneMixin, PreTrainedModel):
    """Scores classes with and without training examples. Make one with [`KGZeroShotClassifier.fit`].

    A score is `f(x) . w_c + b_c`, where x is centred and of unit length. With `"ridge"`, `"ridge_forward"` and
    `"dgp"` it is a cosine, in [-1, 1]. `id2label` holds all classes. The encoder is beside the model, not saved, and
    loaded by its id.
    """

    config_class = KGZeroShotConfig
    config: KGZeroShotConfig
    main_input_name = "input_ids"
    center: Tensor
    class_weight: Tensor
    class_bias: Tensor
    semantics: Tensor
    semantic_center: Tensor
    map: Tensor

    def __init__(self, config: KGZeroShotConfig):
        super().__init__(config)
        count = config.num_labels or 2
        width = config.semantic_size if config.mapped else config.hidden_size
        for name, shape in (
            ("center", (config.hidden_size,)),
            ("class_weight", (count, width)),
            ("class_bias", (count,)),
            ("semantics", (count, config.semantic_size)),
            ("semantic_center", (config.semantic_size,)),
            ("map", (config.hidden_size, config.semantic_size) if config.mapped else (config.semantic_size, width)),
        ):
            if name.startswith("class"):
                setattr(self, name, nn.Parameter(torch.zeros(shape)))
            else:
                self.register_buffer(name, torch.zeros(shape))
        self.propagation = DGPModel(DGPConfig(**(config.propagation or {}))) if config.method == "dgp" else None
        self._encoder: Backbone | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, KGZeroShotClassifier):
            for tensor in (*module.buffers(recurse=False), *module.parameters(recurse=False)):
                init.zeros_(tensor)
        elif module is self.propagation or isinstance(module, nn.Linear):
            cast(DGPModel, self.propagation)._init_weights(module)

    @classmethod
    def fit(cls, inputs: Any, labels: Sequence[Any], **settings: Any) -> KGZeroShotClassifier:
        """Fit on examples of some classes; the others come from the graph.

            clf = KGZeroShotClassifier.fit(features, labels, kg=kg, class_nodes={"cat": "cat.n.01"}, method="dgp")

        See [`~hf_labels.models.kg_zero_shot_fit.fit_classifier`] for all settings.
        """
        from hf_labels.models.kg_zero_shot_fit import fit_classifier

        return fit_classifier(inputs, labels, **settings)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: Any,
        *args: Any,
        backbone: Any = None,
        tokenizer: Any = None,
        load_backbone: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load the classes, and the encoder that the config names (or `backbone`).

        Raises:
            OSError: If the encoder cannot be loaded; names its id and the `backbone=` argument.
        """
        loaded = super().from_pretrained(name, *args, **kwargs)
        if load_backbone:
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model.fetch_backbone(name, backbone, tokenizer)
        return loaded

    @property
    def names(self) -> list[str]:
        """All classes, in the order of the scores."""
        table = cast(dict[int, str], self.config.id2label)
        return [table[number] for number in range(len(table))]

    @property
    def seen(self) -> np.ndarray:
        """Which classes had examples, `(C,)` bool."""
        known = set(self.config.seen or ())
        return np.array([name in known for name in self.names])

    def features_of(self, inputs: Any, batch_size: int = 32) -> np.ndarray:
        """Features `(N, D)`: arrays as they are, texts through the encoder.

        Raises:
            ValueError: For another width, NaN or infinity; names the row.
        """
        if isinstance(inputs, np.ndarray | Tensor):
            given = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
        else:
            given = self.encoder.encode(list(inputs), batch_size)
        return check_matrix(given, "features", self.config.hidden_size)

    def score(self, features: Tensor) -> Tensor:
        """Scores `(B, C)` of features `(B, D)`, without calibration."""
        x = F.normalize(features.to(self.center) - self.center, dim=-1)
        if self.config.mapped:
            x = x @ self.map
            if self.config.method == "ridge_forward":
                x = F.normalize(x, dim=-1)
        return x @ self.class_weight.T + self.class_bias

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """Scores of all classes as logits, those of seen classes less `config.calibration`.

        Args:
            input_ids, attention_mask (`Tensor` of shape `(B, T)`, *optional*): A tokenised text.
            token_type_ids: Accepted for pipelines; not used.
            features (`Tensor` of shape `(B, D)`, *optional*): Features of any encoder instead, of images too.
            labels (`Tensor` of shape `(B,)`, *optional*): Class numbers, for a loss to look at; nothing is trained.

        Raises:
            ValueError: Both or neither of `input_ids` and `features`.
        """
        if (input_ids is None) == (features is None):
            raise ValueError("Give exactly one of `input_ids` and `features`.")
        if features is None:
            if not isinstance(self.encoder, TextEncoder):
                raise ValueError("A black-box encoder reads texts, not token ids: call the model with texts.")
            features = self.encoder.pooled(input_ids, attention_mask)  # type: ignore[arg-type]
        logits = self.score(features) - self.config.calibration * torch.as_tensor(self.seen, device=self.device)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def scores(self, inputs: Any, calibrate: float | None = None, batch_size: int = 32) -> np.ndarray:
        """Scores `(N, C)` of features or texts; `calibrate` in place of `config.calibration`."""
        features = torch.as_tensor(self.features_of(inputs, batch_size), device=self.device)
        constant = self.config.calibration if calibrate is None else calibrate
        return self.score(features).double().cpu().numpy() - constant * self.seen

    def predict(
        self, inputs: Any, candidates: str | Sequence[str] = "all", calibrate: float | None = None
    ) -> list[str]:
        """Name the class of each input.

        Args:
            inputs: Features `(N, D)`, or texts when the model has its encoder.
            candidates (`str` or sequence of names, *optional*, defaults to `"all"`): `"all"` (generalised zero-shot),
                `"unseen"`, `"seen"`, or classes by name.
            calibrate (`float`, *optional*): Taken off the scores of seen classes; `config.calibration` by default.

        Raises:
            ValueError: For a name that is no class, or no candidate.
        """
        names = self.names
        if isinstance(candidates, str) and candidates in ("all", "seen", "unseen"):
            chosen = {"all": np.ones(len(names), bool), "seen": self.seen, "unseen": ~self.seen}[candidates]
        else:
            wanted = [candidates] if isinstance(candidates, str) else list(candidates)
            strange = [name for name in wanted if name not in names]
            if strange:
                raise ValueError(f"{strange[0]!r} is not a class of this model; it has {', '.join(names[:20])}.")
            chosen = np.isin(names, wanted)
        if not chosen.any():
            raise ValueError(f"There is no candidate: `candidates={candidates!r}` leaves no class.")
        table = np.where(chosen, self.scores(inputs, calibrate), -np.inf)
        return [names[number] for number in table.argmax(1)]

    def tune_calibration(self, inputs: Any, labels: Sequence[str]) -> dict[str, Any]:
        """Choose `config.calibration` by the highest harmonic mean on examples of seen and of unseen classes.

        Use classes that are unseen for this model only, not those of a test.

        Returns:
            `dict`: The curve, see [`~hf_labels.metrics.functional.seen_unseen_curve`].
        """
        from hf_labels.metrics.functional.kg_ranking import seen_unseen_curve

        numbers = [self.names.index(str(label)) for label in labels]
        curve = seen_unseen_curve(self.scores(inputs, 0.0), numbers, self.seen)
        self.config.calibration = float(curve["best"])
        return curve

    @torch.no_grad()
    def add_shots(self, inputs: Any, labels: Sequence[str], kappa: float = 3.0) -> None:
        """A few examples of unseen classes: their rows become `(n mean + kappa row) / (n + kappa)`, of unit length.

        Args:
            inputs: Features or texts.
            labels (N names): Classes without training examples.
            kappa (`float`, *optional*, defaults to 3.0): Examples that the graph is worth;
                [`~hf_labels.labels.kg_zero_shot.choose_kappa`] chooses it on the seen classes.

        Raises:
            ValueError: If the method has no prototypes, or a label is no class or a seen one.
        """
        if self.config.method not in PROTOTYPES:
            raise ValueError(f"Examples mix with prototypes; {self.config.method!r} has none. Use method='ridge'.")
        names, seen = self.names, self.seen
        for row, label in enumerate(labels):
            if label not in names or seen[names.index(label)]:
                raise ValueError(f"{label!r} at row {row} is not an unseen class of this model.")
        numbers = np.array([names.index(label) for label in labels])
        x = unit_rows(self.features_of(inputs) - self.center.double().cpu().numpy())
        means, counts = class_means(x, numbers, len(names)), np.bincount(numbers, minlength=len(names))
        rows = np.flatnonzero(counts)
        prior = self.class_weight.double().cpu().numpy()[rows]
        mixed = blend_prototypes(unit_rows(means[rows]), counts[rows], prior, kappa)
        self.class_weight.data[rows] = torch.as_tensor(unit_rows(mixed)).to(self.class_weight)

    @torch.no_grad()
    def add_classes(self, names: Sequence[str], vectors: Any = None, parents: Sequence[Sequence[str]] = ()) -> None:
        """More unseen classes.

        Args:
            names (M names): New ones.
            vectors (`(M, d)`, *optional*): Their semantics; by default the mean of their parents'.
            parents (M lists, *optional*): Nodes of the graph (`"dgp"`), or classes, above each.

        Raises:
            ValueError: If a class is there already, has neither vector nor parents, a parent is unknown, or the method
                trains a classifier on generated features.
        """
        from hf_labels.models.kg_zero_shot_fit import extend_classifier

        extend_classifier(self, list(names), vectors, [list(one) for one in parents])

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config, classes and the encoder's tokenizer; the encoder itself is not written."""
        if self.propagation is not None:
            self.config.propagation = self.propagation.config.to_diff_dict()
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self.save_tokenizer(save_directory)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> Any:  # type: ignore[override]
        """Push the classifier with its card in one commit.

        Args:
            repo_id (`str`): Hub id; made when it is not there. private (`bool`, *optional*), token (`str`, *optional*)

        Returns:
            `CommitInfo` of the upload.
        """
        from huggingface_hub import HfApi

        from hf_labels.hub_cards import render_card, save_card

        facts = {
            "method": self.config.method,
            "seen classes": int(self.seen.sum()),
            "calibration": self.config.calibration,
        }
        card = render_card(
            "kg_zero_shot", model_id=repo_id, base_model=self.config.backbone, labels=self.names, extra=facts
        )
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            self.save_pretrained(place)
            save_card(card, place)
            return api.upload_folder(repo_id=repo_id, folder_path=place, commit_message="Upload zero-shot classes")


AutoConfig.register(KGZeroShotConfig.model_type, KGZeroShotConfig, exist_ok=True)
AutoModelForSequenceClassification.register(KGZeroShotConfig, KGZeroShotClassifier, exist_ok=True)
