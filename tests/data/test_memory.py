import pytest
import torch
from datasets import Dataset
from torch import nn

import toys
from hf_labels.data.memory import MomentumQueue, SampleMemory, add_index


def test_set_get_and_ema_against_a_dict():
    generator = torch.Generator().manual_seed(0)
    memory, table = SampleMemory(9, (2,)), {}
    for _ in range(20):
        index = torch.randperm(9, generator=generator)[:4]
        values = torch.randn(4, 2, generator=generator)
        memory.ema_update(index, values, decay=0.7)
        for row, value in zip(index.tolist(), values, strict=True):
            table[row] = value if row not in table else 0.7 * table[row] + 0.3 * value
    rows = torch.tensor(sorted(table))
    torch.testing.assert_close(memory.get(rows), torch.stack([table[row] for row in rows.tolist()]))
    assert memory.counts.sum() == 80 and memory.seen.sum() == len(table)


def test_a_row_twice_in_a_batch_keeps_its_last_value():
    memory = SampleMemory(3)
    memory.set(torch.tensor([2, 0, 2]), torch.tensor([1.0, 5.0, 9.0]))
    assert memory.values.tolist() == [5.0, 0.0, 9.0] and memory.counts.tolist() == [1, 0, 1]


def test_get_is_a_copy_and_nothing_is_differentiated():
    memory = SampleMemory(2)
    value = torch.tensor([1.0], requires_grad=True)
    memory.set(torch.tensor([1]), value * 2)
    found = memory.get(torch.tensor([1]))
    found += 1
    assert memory.values.tolist() == [0.0, 2.0] and not memory.values.requires_grad


def test_bad_index_and_missing_rows_are_named():
    memory = SampleMemory(3)
    with pytest.raises(IndexError, match="Index 7 is outside the memory of 3 rows.*add_index"):
        memory.set(torch.tensor([0, 7]), torch.zeros(2))
    with pytest.raises(IndexError, match="Index -1"):
        memory.get(torch.tensor([-1]))
    with pytest.raises(IndexError, match="integers"):
        memory.get(torch.tensor([0.5]))
    with pytest.raises(KeyError, match="Row 1 of the memory was never set"):
        memory.get(torch.tensor([1]))
    assert memory.get(torch.tensor([1]), missing="fill").tolist() == [0.0]
    with pytest.raises(ValueError, match=r"shape \(1, 2\)|\(1,\)"):
        memory.set(torch.tensor([1]), torch.zeros(1, 2))
    with pytest.raises(TypeError, match="float memory"):
        SampleMemory(3, dtype=torch.int64).ema_update(torch.tensor([1]), torch.tensor([1]), 0.5)
    with pytest.raises(ValueError, match="decay"):
        memory.ema_update(torch.tensor([1]), torch.zeros(1), 1.5)


def test_index_survives_shuffling_and_memory_fits_the_data_set():
    dataset = add_index(Dataset.from_dict({"x": list("abcde")})).shuffle(seed=1).select(range(3))
    assert sorted(dataset["index"]) != [0, 1, 2]
    memory = SampleMemory.for_dataset(dataset)
    assert len(memory) == max(dataset["index"]) + 1
    assert add_index(dataset) is dataset
    with pytest.raises(ValueError, match="distinct integers"):
        add_index(Dataset.from_dict({"index": [0, 0]}))
    with pytest.raises(KeyError, match="index"):
        SampleMemory.for_dataset(Dataset.from_dict({"x": [1]}))


def test_state_dict_round_trip():
    module = nn.ModuleDict({"memory": SampleMemory(4, (2,)), "queue": MomentumQueue(5, 2)})
    module["memory"].set(torch.tensor([3]), torch.ones(1, 2))
    module["queue"].enqueue(torch.ones(3, 2), torch.tensor([1, 2, 3]))
    other = nn.ModuleDict({"memory": SampleMemory(4, (2,)), "queue": MomentumQueue(5, 2)})
    other.load_state_dict(module.state_dict())
    toys.assert_same(toys.weights(module), toys.weights(other))


@pytest.mark.parametrize("sizes", [[2, 2, 2], [3, 4, 1], [12], [5, 7]])
def test_queue_against_a_list(sizes):
    queue, entries, number = MomentumQueue(5, 1), [], 0
    for size in sizes:
        new = torch.arange(number, number + size, dtype=torch.float32)[:, None]
        queue.enqueue(new, torch.arange(number, number + size))
        entries, number = (entries + list(range(number, number + size)))[-5:], number + size
    start = int(queue.pointer) if int(queue.filled) == 5 else 0
    order = [(start + i) % 5 for i in range(int(queue.filled))]
    assert queue.features[order, 0].tolist() == entries and queue.labels[order].tolist() == entries
    assert queue.valid.sum() == len(entries) == int(queue.filled)


def test_queue_without_labels_and_bad_shapes():
    queue = MomentumQueue(3, 2)
    queue.enqueue(torch.ones(1, 2))
    assert queue.labels.tolist() == [-1, -1, -1] and queue.valid.tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        queue.enqueue(torch.ones(1, 3))
    with pytest.raises(ValueError, match="labels"):
        queue.enqueue(torch.ones(1, 2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="positive"):
        MomentumQueue(0, 2)
