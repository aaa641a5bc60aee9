"""How rows reach a `LabelTrainer`: columns, loaders, streams, and random numbers that a resumed run repeats."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import torch
from torch import Tensor
from transformers import Trainer

from hf_labels.data.rng import derive_seed, isolated_rng
from hf_labels.data.streams import SeededRows, Stream, batches_drawn, is_map_style, using_collator


class InputsTrainer(Trainer):
    """The part of [`LabelTrainer`] that makes batches; see there."""

    _extra_columns: ClassVar[tuple[str, ...]] = ()
    _required_columns: ClassVar[tuple[str, ...]] = ()
    _label_kinds: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.streams: dict[str, Stream] = {}
        self._train_rows: SeededRows | None = None
        self._items: dict[str, Tensor] = {}

    def label_kinds(self) -> dict[str, str]:
        """Column -> label kind of this run; `_label_kinds` unless a subclass depends on its arguments."""
        return dict(self._label_kinds)

    def required_columns(self) -> list[str]:
        """Columns without which training data is refused."""
        return [*self._required_columns, *self.label_kinds()]

    def count_items(self, inputs: dict[str, Any]) -> dict[str, int | Tensor]:
        """Numbers of things (rows, tokens) in a training batch over which `mean_over_update` averages.

        The same names for every batch; a count may be 0.
        """
        return {}

    def model_inputs(self, inputs: Mapping[str, Any], labels: bool = False) -> dict[str, Any]:
        """Inputs for `model(**...)`: no label columns (unless `labels`), extra columns or streams.

        Labels stay out because a classification head that is given float labels silently trains another loss.
        """
        base = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        parameters = inspect.signature(base.forward).parameters
        hidden = {*self._kept_columns(), *self.streams} - set(parameters)
        hidden |= set() if labels else {*self.label_names, "labels", "label", "label_ids"}
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        return {n: v for n, v in inputs.items() if n not in hidden and (takes_all or n in parameters)}

    def add_stream(self, name: str, dataset: Any, ratio: float = 1.0, **options: Any) -> None:
        """Draw a batch of a second data set with every training batch; it arrives as `inputs[name]`, a dict.

        One epoch stays one pass over `train_dataset`; this data set starts again, in a new order, when it ends.

        Args:
            name (`str`): Key in `inputs`.
            dataset: Map-style data set.
            ratio (`float`, *optional*, defaults to `1.0`): Its rows per row of the training batch.
            options: `batch_size`, `data_collator`, `sampler_fn` of [`~hf_labels.data.streams.Stream`].

        Raises:
            ValueError: If the name is taken, or the data set is empty.
            TypeError: If the data set has no length.
        """
        if name in self.streams or name in self._kept_columns():
            raise ValueError(f"A stream cannot be called `{name}`: that name is taken.")
        self.streams[name] = Stream(name, dataset, ratio, order=len(self.streams) + 1, **options)

    def _kept_columns(self) -> list[str]:
        reads = getattr(self.data_collator, "input_columns", ())  # an image, a key: what the collator itself needs
        return [*self._extra_columns, *self._required_columns, *self.label_kinds(), *reads]

    def _set_signature_columns_if_needed(self) -> None:
        known = self._signature_columns
        super()._set_signature_columns_if_needed()
        if known is None:
            columns: Any = self._signature_columns
            columns.extend(self._kept_columns())

    def _get_dataloader(
        self, dataset, description, batch_size, sampler_fn=None, is_training=False, dataloader_key=None
    ):
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows, sampler = dataset, sampler_fn
        if is_map_style(dataset):
            is_table = isinstance(dataset, datasets.Dataset)
            is_lazy = is_table and dataset.format["type"] == "custom"  # a transform reads columns the model has not
            if is_table and not is_lazy:
                rows = self._remove_unused_columns(dataset, description)
            if is_training or is_lazy:
                rows = SeededRows(rows, seed if is_training else None, self.args.dataloader_persistent_workers)
                sampler = None if sampler_fn is None else lambda _: sampler_fn(dataset)  # sees all columns
            if is_training and hasattr(self.data_collator, "set_epoch"):
                rows.follower = self.data_collator
        collator = None if is_training else getattr(self.data_collator, "evaluation_collator", None)
        # Evaluation is never mixed or cropped at random; accelerate shuffles with the seed that is set here.
        with using_collator(self, collator), isolated_rng(seed if is_training else None):
            return super()._get_dataloader(rows, description, batch_size, sampler, is_training, dataloader_key)

    def get_train_dataloader(self):
        for stream in self.streams.values():
            stream.close()
        loader = super().get_train_dataloader()
        self._train_rows = loader.dataset if isinstance(loader.dataset, SeededRows) else None
        return loader

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        seed = derive_seed(self.args.seed, self.state.global_step, self.args.process_index)
        with isolated_rng(seed):  # loading data does not move the random numbers of the model
            if self._train_rows is not None:
                self._train_rows.set_epoch(int(self.state.epoch or 0))
            self._open_streams()
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
            for batch in batches:
                batch.update({name: stream.next_batch() for name, stream in self.streams.items()})
        self._items = self._count_update(batches, device)
        return batches, num_items

    def _open_streams(self) -> None:
        if all(stream.is_open for stream in self.streams.values()):
            return
        loader: Any = self.callback_handler.train_dataloader
        length = len(loader) if is_map_style(loader.dataset) else None
        steps, skips = self.args.gradient_accumulation_steps, not self.args.ignore_data_skip
        for stream in self.streams.values():
            stream.open(self, batches_drawn(self.state.global_step, length, steps, skips), self._train_batch_size)

    def _count_update(self, batches: list[dict[str, Any]], device: torch.device) -> dict[str, Tensor]:
        """Items of the whole update: all accumulated batches of all processes."""
        totals: dict[str, Tensor] = {}
        for batch in batches:
            for name, count in self.count_items(batch).items():
                count = torch.as_tensor(count, device=device, dtype=torch.int64)
                totals[name] = totals.get(name, torch.zeros_like(count)) + count
        if self.accelerator.num_processes > 1 and totals:
            summed = self.accelerator.reduce(torch.stack(list(totals.values())), "sum")
            totals = dict(zip(totals, summed, strict=True))
        return totals
