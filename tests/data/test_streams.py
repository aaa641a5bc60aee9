import random

import numpy as np
import pytest
import torch

from hf_labels.data.rng import derive_seed, isolated_rng, seed_host
from hf_labels.data.streams import SeededRows, Stream, batches_drawn


def test_isolated_rng_gives_all_states_back():
    seed_host(3)
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    seed_host(3)
    with isolated_rng(99):
        inside = (random.random(), np.random.rand(), torch.rand(()).item())
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    with isolated_rng(99):
        assert (random.random(), np.random.rand(), torch.rand(()).item()) == inside


def test_derived_seeds_differ():
    seeds = {derive_seed(1, epoch, row) for epoch in range(20) for row in range(20)}
    assert len(seeds) == 400


class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, row):
        return row, random.random(), np.random.rand(), torch.rand(()).item()


def test_rows_draw_by_seed_epoch_and_row_numbers():
    def read(seed, epoch, rows):
        dataset = SeededRows(Noisy(), seed)
        dataset.set_epoch(epoch)
        with isolated_rng():
            return dataset.__getitems__(rows)

    first = read(1, 0, [2, 5])
    with isolated_rng(123):
        assert read(1, 0, [2, 5]) == first
    for other in (read(2, 0, [2, 5]), read(1, 1, [2, 5]), read(1, 0, [2, 6])):
        assert other[0] != first[0]
    assert len(SeededRows(Noisy(), 1)) == 8


def test_workers_that_stay_alive_see_the_epoch():
    dataset = SeededRows(Noisy(), 1, shared=True)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=list
    )
    alone = SeededRows(Noisy(), 1)
    for epoch in (0, 1, 4):
        dataset.set_epoch(epoch)
        alone.set_epoch(epoch)
        with isolated_rng():
            assert list(loader) == [alone.__getitems__([0, 1, 2, 3]), alone.__getitems__([4, 5, 6, 7])]


@pytest.mark.parametrize(("batches", "accumulation"), [(5, 2), (6, 2), (4, 1), (3, 5)])
def test_batches_drawn_follows_the_loop_of_trainer(batches, accumulation):
    drawn, step = 0, 0
    for _ in range(3):
        left = batches
        while left:
            assert batches_drawn(step, batches, accumulation) == drawn
            taken = min(accumulation, left)
            drawn, left, step = drawn + taken, left - taken, step + 1
    assert batches_drawn(7, None, 3) == 21


def test_bad_streams_are_refused():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from ()

    with pytest.raises(TypeError, match="`u` has no length"):
        Stream("u", Endless())
    with pytest.raises(ValueError, match="`u` is empty"):
        Stream("u", [])
    with pytest.raises(ValueError, match="positive"):
        Stream("u", [1], ratio=0)
    with pytest.raises(RuntimeError, match="not open"):
        Stream("u", [1]).next_batch()
