import pytest
import torch
from accelerate import Accelerator
from torch import nn

import toys
from hf_labels.trainers.teachers import EMATeacher, FrozenTeacher, model_logits


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.frozen = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.head(self.norm(self.frozen(x)))


def test_frozen_teacher_is_hidden_and_stays_in_eval_mode():
    net = Net().train()
    teacher = FrozenTeacher(net)
    holder = nn.Sequential(nn.Linear(2, 2), teacher).train()
    assert len(list(holder.parameters())) == 2 and set(holder.state_dict()) == {"0.weight", "0.bias"}
    net.train()
    mean = net.norm.running_mean.clone()
    output = teacher(torch.ones(4, 2, requires_grad=True))
    assert not output.requires_grad and not net.training
    torch.testing.assert_close(net.norm.running_mean, mean)
    holder.to(torch.float64)
    assert net.head.weight.dtype == torch.float64  # moves with its holder


def test_frozen_teacher_picks_its_inputs():
    teacher = FrozenTeacher(toys.tiny_bert())
    batch = {"input_ids": torch.tensor([[2, 3]]), "labels": torch.tensor([1]), "index": torch.tensor([0])}
    expected = teacher(input_ids=batch["input_ids"]).logits
    torch.testing.assert_close(teacher.logits(batch), expected)
    own = FrozenTeacher(toys.tiny_bert(), input_prefix="teacher_")
    torch.testing.assert_close(own.logits({"teacher_input_ids": batch["input_ids"], "input_ids": None}), expected)
    with pytest.raises(ValueError, match="no input for the teacher.*teacher_"):
        own.logits(batch)
    with pytest.raises(KeyError, match="no `logits`"):
        model_logits({"loss": 1})


def test_placing_leaves_no_trace_in_accelerate():
    accelerator = Accelerator(cpu=True)
    count = len(accelerator._models)
    FrozenTeacher(Net()).place(accelerator)
    EMATeacher(Net()).place(accelerator)
    assert len(accelerator._models) == count


@pytest.mark.parametrize("buffers", ["copy", "average", "keep"])
def test_ema_formula_for_parameters_and_buffers(buffers):
    student = Net()
    teacher = EMATeacher(student, decay=0.8, buffers=buffers)
    weight, mean = student.head.weight.clone(), student.norm.running_mean.clone()
    for step in range(1, 4):
        with torch.no_grad():
            student.head.weight.add_(torch.randn(2, 3))
        student.train()(torch.randn(8, 2))
        teacher.after_step(student, step)
        weight = 0.8 * weight + 0.2 * student.head.weight.detach()
        now = student.norm.running_mean.clone()
        mean = {"copy": now, "average": 0.8 * mean + 0.2 * now, "keep": mean}[buffers]
    torch.testing.assert_close(teacher.model.head.weight, weight)
    torch.testing.assert_close(teacher.model.norm.running_mean, mean)
    assert int(teacher.model.norm.num_batches_tracked) == (0 if buffers == "keep" else 3)


def test_frozen_parameters_are_shared_and_not_saved():
    student = Net()
    teacher = EMATeacher(student)
    assert teacher.model.frozen.weight is student.frozen.weight
    assert teacher.model.head.weight is not student.head.weight and student.head.weight.requires_grad
    assert "model.frozen.weight" not in teacher.state_dict() and "model.head.weight" in teacher.state_dict()
    holder = nn.ModuleDict({"teacher": teacher})
    assert "teacher.model.frozen.weight" not in holder.state_dict()
    student.frozen.requires_grad_(True)
    with pytest.raises(ValueError, match="frozen.* is trained now"):
        teacher.update(student, 0.9)


def test_decay_schedules():
    student = Net()
    assert EMATeacher(student, decay=0.99).decay_at(1) == 0.99
    warm = EMATeacher(student, decay=0.9, warmup=True)
    assert [warm.decay_at(t) for t in (1, 2, 4, 100)] == [0.5, 1 - 1 / 3, 0.8, 0.9]
    late = EMATeacher(student, decay=0.9, start_step=5)
    assert [late.decay_at(t) for t in (1, 5, 6)] == [0.0, 0.0, 0.9]
    assert EMATeacher(student, decay=lambda step: 0.1 * step).decay_at(3) == pytest.approx(0.3)
    for options in ({"decay": 1.5}, {"buffers": "x"}):
        with pytest.raises(ValueError, match="must be"):
            EMATeacher(student, **options)


def test_ema_teacher_never_trains_and_can_be_exported():
    student = toys.tiny_bert()
    teacher = EMATeacher(student, decay=0.5)
    nn.ModuleList([teacher]).train()
    assert not teacher.model.training
    with torch.no_grad():
        student.classifier.weight.add_(1.0)
    teacher.after_step(student, 1)
    target = toys.tiny_bert(seed=9)
    teacher.copy_to(target)
    toys.assert_same(toys.weights(target), toys.weights(teacher.model))
    assert not teacher(input_ids=torch.tensor([[2, 3]])).logits.requires_grad
