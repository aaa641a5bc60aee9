"""Heads on a frozen encoder, which is kept beside the model: never trained, not saved, loaded again by its id."""

from __future__ import annotations

import logging
from typing import Any

from hf_labels.data.encoders import Backbone, TextEncoder, make_encoder

logger = logging.getLogger(__name__)


class FrozenBackboneMixin:
    """For a `PreTrainedModel` that reads frozen features. The encoder is no submodule, so it is in no `state_dict`.

    The config must have `backbone`, `backbone_revision`, `backbone_fingerprint`, `hidden_size`, `text_pooling`,
    `template` and `max_length`.
    """

    config: Any
    device: Any
    _encoder: Backbone | None = None

    def attach_backbone(self, encoder: Backbone) -> None:
        """Put a frozen encoder beside the head. Warns when its weights are not those that the head was trained on.

        Raises:
            ValueError: If its width is not `config.hidden_size`.
        """
        if encoder.hidden_size != self.config.hidden_size:
            raise ValueError(
                f"The backbone gives {encoder.hidden_size} features, this head takes {self.config.hidden_size}. "
                f"It was trained on `{self.config.backbone}`."
            )
        trained_on = self.config.backbone_fingerprint
        if trained_on and isinstance(encoder, TextEncoder) and encoder.key()["model"] != trained_on:
            logger.warning(
                "The weights of the backbone `%s` differ from those this head was trained on (`%s`): expect other "
                "predictions.",
                encoder.model_id,
                self.config.backbone,
            )
        self._encoder = encoder

    @property
    def encoder(self) -> Backbone:
        """The frozen backbone. Raises `RuntimeError` with the repair when the model has none."""
        if self._encoder is None:
            raise RuntimeError(
                f"This {type(self).__name__} has no backbone loaded (it was trained on `{self.config.backbone}`). "
                "Pass `features=`, or load it with `from_pretrained(..., backbone=...)`."
            )
        return self._encoder.to(self.device)

    @property
    def backbone(self) -> Any:
        """The frozen Hugging Face model inside the encoder, `None` for a black box."""
        return getattr(self._encoder, "model", None)

    def fetch_backbone(self, name: Any, backbone: Any = None, tokenizer: Any = None) -> None:
        """Attach the backbone that the config names, or another one.

        Args:
            name: What the model was loaded from, for the error.
            backbone, tokenizer (*optional*): Use this one (id, folder, model or black box).

        Raises:
            OSError: If it cannot be loaded; names its id and the `backbone=` argument.
            ValueError: If it has another width.
        """
        config = self.config
        wanted = backbone if backbone is not None else config.backbone
        black_box = config.text_pooling == "embedding"
        if wanted is None or (black_box and backbone is None):
            return
        try:
            encoder = make_encoder(
                wanted,
                tokenizer,
                revision=config.backbone_revision if backbone is None else None,
                pooling=None if black_box else config.text_pooling,
                template=config.template,
                max_length=config.max_length,
            )
        except OSError as error:
            raise OSError(
                f"The model `{name}` stands on the frozen backbone `{wanted}`, which is not part of it and could not "
                f"be loaded. Make it reachable, or pass `backbone=` with an id, a folder or a loaded model; "
                f"`load_backbone=False` loads the head alone. Cause: {error}"
            ) from error
        self.attach_backbone(encoder)

    def save_tokenizer(self, folder: Any) -> None:
        """Write the backbone's tokenizer, so that a stock pipeline loads in one call."""
        tokenizer = getattr(self._encoder, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
