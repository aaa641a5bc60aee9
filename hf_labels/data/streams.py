"""Streams of batches beside the training set (labelled + unlabelled), and rows whose random draws can be repeated.

**One epoch is one pass over the training set** (the primary stream). Every primary batch gets one batch of each
further stream; a further stream starts again, in a new order, when it ends. Its position follows from the number of
primary batches drawn so far, so a resumed run continues both streams exactly where they were, also in mid-epoch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from hf_labels.data.rng import derive_seed, seed_host

# Streams shuffle with seeds far from each other: two sets of one length must not come in the same order.
_ORDER_STEP = 1_000_003


class SeededRows(Dataset):
    """A map-style data set whose random transforms depend only on the seed, the epoch and the rows asked for.

    Before the rows of a batch are read, the host generators (`random`, numpy, torch) are seeded from
    `(seed, epoch, row numbers)`. Lazy transforms and collators may therefore draw as they like: a resumed run sees the
    same views, whatever the number of loader workers.

    Args:
        dataset: Anything with `__len__` and `__getitem__`; `datasets.Dataset` is read a batch at a time.
        seed (`int`, *optional*): `None` reads without seeding.
        shared (`bool`, *optional*, defaults to `False`): Loader workers stay alive over epochs and must see the new
            epoch too.
    """

    def __init__(self, dataset: Any, seed: int | None, shared: bool = False) -> None:
        self.dataset = dataset
        self.seed = seed
        self.follower: Any = None  # a collator that is told the epoch too
        self._epoch = torch.zeros((), dtype=torch.int64)
        if shared:
            self._epoch.share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch from which the draws depend."""
        self._epoch.fill_(epoch)
        if self.follower is not None:
            self.follower.set_epoch(epoch)

    def __getitem__(self, row: int) -> Any:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[Any]:
        if self.seed is not None:
            seed_host(derive_seed(self.seed, int(self._epoch), *rows))
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(rows)
        return [self.dataset[row] for row in rows]


def is_map_style(dataset: Any) -> bool:
    """Whether rows can be asked for by number, and counted."""
    return not isinstance(dataset, IterableDataset) and hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")


class Stream:
    """Batches of a second data set, one for every batch of the training set. See [`LabelTrainer.add_stream`].

    Args:
        name (`str`): Key under which the batch arrives in `inputs` (a dict of tensors).
        dataset: Map-style data set with at least one row.
        ratio (`float`, *optional*, defaults to `1.0`): Rows of this stream for each row of the training batch.
        batch_size (`int`, *optional*): Rows per device and batch instead of `ratio`.
        data_collator (callable, *optional*): Defaults to the trainer's.
        sampler_fn (callable, *optional*): `dataset -> Sampler`; defaults to the trainer's training sampler.
        order (`int`, *optional*, defaults to `1`): Number of the stream; streams of one trainer shuffle differently.

    Raises:
        TypeError: If the data set has no length (its position could not be restored).
        ValueError: If it is empty, or `ratio` or `batch_size` is not positive.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        ratio: float = 1.0,
        batch_size: int | None = None,
        data_collator: Callable[[list[Any]], dict[str, Any]] | None = None,
        sampler_fn: Callable[[Any], Any] | None = None,
        order: int = 1,
    ) -> None:
        if not is_map_style(dataset):
            raise TypeError(
                f"The data set of stream `{name}` has no length, so its place cannot be found again on resume. "
                "Use a map-style data set, for example `Dataset.from_generator(...)`."
            )
        if len(dataset) == 0:
            raise ValueError(f"The data set of stream `{name}` is empty.")
        if not ratio > 0 or (batch_size is not None and batch_size < 1):
            raise ValueError(f"`ratio` and `batch_size` of stream `{name}` must be positive.")
        self.name = name
        self.dataset = dataset
        self.ratio = ratio
        self.batch_size = batch_size
        self.data_collator = data_collator
        self.sampler_fn = sampler_fn
        self._loader: Any = None
        self._batches: Iterator[Any] | None = None
        self.order = order

    @property
    def is_open(self) -> bool:
        """Whether the stream has a place."""
        return self._loader is not None

    def open(self, trainer: Any, drawn: int, train_batch_size: int) -> None:
        """Build the loader through `trainer._get_dataloader` (sharded over ranks) and go to batch number `drawn`."""
        size = self.batch_size or max(1, round(self.ratio * train_batch_size))
        with using_collator(trainer, self.data_collator):
            self._loader = trainer._get_dataloader(
                dataset=self.dataset,
                description=f"Stream {self.name}",
                batch_size=size,
                sampler_fn=self.sampler_fn or trainer._get_train_sampler,
                is_training=True,
            )
        if len(self._loader) == 0:
            raise ValueError(
                f"Stream `{self.name}` has {len(self.dataset)} rows and gives no batch of {size} rows: "
                "lower its batch size or switch `dataloader_drop_last` off."
            )
        self._batches = self._walk(drawn)

    def close(self) -> None:
        """Forget the place; the next [`open`] sets it."""
        self._batches = None
        self._loader = None

    def next_batch(self) -> dict[str, Any]:
        """The next batch; never ends."""
        if self._batches is None:
            raise RuntimeError(f"Stream `{self.name}` is not open.")
        return next(self._batches)

    def _walk(self, drawn: int) -> Iterator[Any]:
        from accelerate import skip_first_batches

        turn, done = divmod(drawn, len(self._loader))
        while True:
            loader = skip_first_batches(self._loader, done) if done else self._loader
            order = _ORDER_STEP * self.order + turn
            loader.set_epoch(order)
            if isinstance(loader.dataset, SeededRows):
                loader.dataset.set_epoch(order)
            try:
                yield from loader
            finally:
                loader.end()  # a loader left in the middle would stay registered with accelerate
            turn, done = turn + 1, 0


@contextmanager
def using_collator(trainer: Any, collator: Callable[[list[Any]], dict[str, Any]] | None) -> Iterator[None]:
    """Give a trainer another collator (`None`: its own) for the loaders that are built in the block."""
    previous = trainer.data_collator
    trainer.data_collator = collator or previous
    try:
        yield
    finally:
        trainer.data_collator = previous


def batches_drawn(global_step: int, batches_per_epoch: int | None, accumulation: int, skip_data: bool = True) -> int:
    """Number of training batches that lie behind a run at `global_step`, as `Trainer` counts them.

    Args:
        global_step (`int`): Optimizer steps done.
        batches_per_epoch (`int`, *optional*): Length of the loader; `None` when it has none.
        accumulation (`int`): Batches per optimizer step (the last step of an epoch may have fewer).
        skip_data (`bool`, *optional*, defaults to `True`): `False` when a run restarts its epoch (`ignore_data_skip`).

    Example:
        >>> batches_drawn(global_step=5, batches_per_epoch=5, accumulation=2)  # steps of 2, 2, 1 batches; 2, 2, ...
        9
    """
    if not batches_per_epoch:
        return global_step * accumulation
    epochs, steps = divmod(global_step, -(-batches_per_epoch // accumulation))
    return epochs * batches_per_epoch + (steps * accumulation if skip_data else 0)
