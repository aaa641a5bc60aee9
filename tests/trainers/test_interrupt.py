import os
import signal

import pytest
from toy_trainers import ToyTrainer
from transformers import TrainerCallback

import toys
from hf_labels.trainers.base import LabelTrainingArguments


class CtrlC(TrainerCallback):
    """Sends SIGINT to this process at one event of one step."""

    def __init__(self, event, step):
        setattr(self, event, self._send)
        self.step = step

    def _send(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def run(folder, callbacks=(), resume=None, **options):
    arguments = {
        "num_train_epochs": 2,
        "gradient_accumulation_steps": 2,
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "logging_steps": 1,
        "overwrite_output_dir": True,
    } | options
    trainer = ToyTrainer(
        toys.tiny_bert(),
        LabelTrainingArguments(**toys.quick(folder, **arguments)),
        train_dataset=toys.text_dataset(20),
        eval_dataset=toys.text_dataset(6, seed=2),
        unlabeled_dataset=toys.text_dataset(9, seed=5),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(
    ("event", "step", "saved"),
    [
        ("on_pre_optimizer_step", 1, 2),  # in the middle of an optimizer step: the step is finished first
        ("on_substep_end", 3, 4),
        ("on_pre_optimizer_step", 2, 3),  # the last step of an epoch: its evaluation is not lost
        ("on_prediction_step", 3, 3),  # in an evaluation: stops at once, the finished step is saved
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(whole, tmp_path, event, step, saved):
    before = signal.getsignal(signal.SIGINT)
    message = f"after step {saved}; everything is saved in .*checkpoint-{saved}.*resume_from_checkpoint"
    with pytest.raises(KeyboardInterrupt, match=message):
        run(tmp_path, [CtrlC(event, step)])
    assert signal.getsignal(signal.SIGINT) is before
    again = run(tmp_path, resume=True)
    toys.assert_same(toys.weights(whole.model), toys.weights(again.model))
    toys.assert_same(toys.weights(whole.method_state), toys.weights(again.method_state))
    losses = [entry["loss"] for entry in again.state.log_history if "loss" in entry]
    assert losses == [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    if event == "on_pre_optimizer_step":
        evaluations = [entry["eval_loss"] for entry in again.state.log_history if "eval_loss" in entry]
        assert evaluations == [entry["eval_loss"] for entry in whole.state.log_history if "eval_loss" in entry]


def test_second_interrupt_stops_at_once_and_names_the_last_checkpoint(tmp_path):
    class Twice(CtrlC):
        def _send(self, args, state, control, **kwargs):
            super()._send(args, state, control)
            super()._send(args, state, control)

    with pytest.raises(KeyboardInterrupt, match="interrupted after step 4; step 3 is saved in .*checkpoint-3"):
        run(tmp_path, [Twice("on_pre_optimizer_step", 4)])


def test_without_saving_it_says_so(tmp_path):
    with pytest.raises(KeyboardInterrupt, match='nothing was saved .*save_strategy="no"'):
        run(tmp_path, [CtrlC("on_pre_optimizer_step", 0)], save_strategy="no")
    assert not list(tmp_path.glob("checkpoint-*"))
