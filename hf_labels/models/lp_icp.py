"""A multi-label classifier together with its conformal calibration: one object to predict with, save, load and push.

classifier = ConformalMultiLabelClassifier(model, tokenizer).calibrate(held_out)
classifier.predict(["some text"], epsilon=0.1)[0].label_sets()
classifier.save_pretrained("my-model")          # the model as always, and two small files beside it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_labels.labels.columns import read_column, require_columns
from hf_labels.labels.lp_icp import LabelPowersetICP
from hf_labels.labels.lp_icp_files import load_icp, save_icp, write_card
from hf_labels.labels.lp_icp_prediction import LabelSetPrediction


class ConformalMultiLabelClassifier:
    """Any `AutoModelForSequenceClassification` or `AutoModelForImageClassification` of kind
    `multi_label_classification`, with label sets that hold the truth with a promised probability.

    Args:
        model (`PreTrainedModel`): Trained; its `config.id2label` names the labels.
        processor: Its tokenizer or image processor.
        icp ([`LabelPowersetICP`], *optional*): A calibration that is there already.

    Raises:
        ValueError: If the model is not of kind `multi_label_classification`, or `icp` has other labels.
    """

    def __init__(self, model: Any, processor: Any, icp: LabelPowersetICP | None = None) -> None:
        if model.config.problem_type != "multi_label_classification":
            raise ValueError(
                f"The model's `config.problem_type` is {model.config.problem_type!r}, expected "
                "'multi_label_classification': its outputs must be one sigmoid per label."
            )
        self.model, self.processor = model, processor
        self.names = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
        if icp is not None and (icp.num_labels != len(self.names) or list(icp.names or self.names) != self.names):
            raise ValueError(f"`icp` was calibrated for {icp.num_labels} labels, the model has {self.names}.")
        self._icp = icp

    @property
    def icp(self) -> LabelPowersetICP:
        """The calibrated predictor.

        Raises:
            RuntimeError: Before calibration.
        """
        if self._icp is None:
            raise RuntimeError("This classifier is not calibrated: call `calibrate(dataset)` first.")
        return self._icp

    @torch.no_grad()
    def logits(self, inputs: Sequence[Any], batch_size: int = 32) -> np.ndarray:
        """Logits `(n, L)`, float64, of texts or images."""
        from transformers import PreTrainedTokenizerBase

        was_training = self.model.training
        self.model.eval()
        rows, texts = [np.zeros((0, len(self.names)))], isinstance(self.processor, PreTrainedTokenizerBase)
        for start in range(0, len(inputs), batch_size):
            part = list(inputs[start : start + batch_size])
            if texts:
                batch = self.processor(part, truncation=True, padding=True, return_tensors="pt")
            else:
                batch = self.processor(images=part, return_tensors="pt")
            rows.append(self.model(**batch.to(self.model.device)).logits.double().cpu().numpy())
        self.model.train(was_training)
        return np.concatenate(rows)

    def calibrate(
        self,
        dataset: Any,
        input_column: str = "text",
        label_column: str = "labels",
        *,
        d: float = 2.0,
        batch_size: int = 32,
    ) -> ConformalMultiLabelClassifier:
        """Calibrate on labelled rows that the model was not trained on.

        Args:
            dataset (`datasets.Dataset`): Texts or images, and 0/1 rows of L labels.
            input_column, label_column (`str`, *optional*): Its columns.
            d (`float`, *optional*, defaults to 2): Power of the score.
            batch_size (`int`, *optional*, defaults to 32)

        Returns:
            `self`

        Raises:
            KeyError: If a column is missing.
            ValueError: As [`LabelPowersetICP.calibrate`].
        """
        outputs, labels = self._read(dataset, input_column, label_column, batch_size)
        self._icp = LabelPowersetICP(d=d, names=self.names).calibrate(outputs, labels, from_logits=True)
        return self

    def _read(self, dataset: Any, input_column: str, label_column: str, batch_size: int) -> tuple[Any, Any]:
        require_columns(dataset, [input_column], "input_column")
        require_columns(dataset, [label_column], "label_column")
        labels = read_column(dataset, label_column)
        if labels.lengths is None:
            raise ValueError(f"Column `{label_column}` holds one value per row, expected rows of 0 and 1.")
        return self.logits(dataset[input_column][:], batch_size), labels.matrix()

    def predict(
        self, inputs: Sequence[Any], epsilon: float = 0.1, *, batch_size: int = 32, **options: Any
    ) -> list[LabelSetPrediction]:
        """Prediction sets of texts or images; `options` as in [`LabelPowersetICP.predict`]."""
        icp = self.icp
        return icp.predict(self.logits(inputs, batch_size), epsilon, **options)

    def score(
        self,
        dataset: Any,
        input_column: str = "text",
        label_column: str = "labels",
        *,
        epsilons: Sequence[float] = (0.05, 0.1, 0.2),
        batch_size: int = 32,
    ) -> list[dict[str, Any]]:
        """Error rate, sizes and more on other labelled rows; see [`LabelPowersetICP.score`]."""
        icp = self.icp
        return icp.score(*self._read(dataset, input_column, label_column, batch_size), epsilons)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model, processor and calibration into one folder. Returns it."""
        icp, place = self.icp, Path(folder)
        self.model.save_pretrained(place)
        self.processor.save_pretrained(place)
        return save_icp(icp, place)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> ConformalMultiLabelClassifier:
        """Load model, processor and calibration from a folder or the Hub.

        Args:
            name: Folder or Hub id.
            options: For the model's `from_pretrained`, such as `dtype`; `revision` and `token` go to all three.

        Raises:
            FileNotFoundError: If there is no calibration beside the model.
            ValueError: If the model is neither a text nor an image classifier.
        """
        from transformers import (
            MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
            AutoConfig,
            AutoImageProcessor,
            AutoModelForImageClassification,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        shared = {key: options.pop(key) for key in ("revision", "token") if key in options}
        icp = load_icp(name, **shared)
        model: Any
        processor: Any
        kind = type(AutoConfig.from_pretrained(name, **shared))
        if kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            model, processor = AutoModelForSequenceClassification, AutoTokenizer
        elif kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            model, processor = AutoModelForImageClassification, AutoImageProcessor
        else:
            raise ValueError(f"{kind.__name__} is no text or image classifier; load it yourself and pass it.")
        loaded = model.from_pretrained(name, **shared, **options)
        return cls(loaded, processor.from_pretrained(name, **shared), icp)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        plots: Sequence[Any] = (),
        results: Sequence[Any] = (),
        base_model: str | None = None,
        private: bool | None = None,
        token: Any = None,
    ) -> Any:
        """Push model, processor, calibration and a card in one commit.

        Args:
            repo_id (`str`): Repository of the model; a card that is there already is not replaced.
            plots (*optional*): Pictures for the card, such as [`~hf_labels.hub_cards.validity_plot`].
            results (sequence of `ResultRow`, *optional*): Measured numbers for the card.
            base_model (`str`, *optional*): Model that training began from.
            private, token (*optional*): As in `huggingface_hub`.

        Returns:
            `CommitInfo`
        """
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if not api.file_exists(repo_id, "README.md"):
                write_card(self.icp, folder, repo_id, base_model=base_model, plots=plots, results=results)
            return api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="Upload classifier with conformal label sets"
            )
