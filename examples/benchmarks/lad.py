"""What LAD costs: the label channel, the losses, and a step of teacher and student, next to plain training.

    python examples/benchmarks/lad.py [--turns 15] [--batch 4] [--size 64]

The label channel is compared with the replacement class by class of the authors' code, channel-wise distillation with
`torch.nn.functional.kl_div` of the same maps, and a training step with one of cross-entropy alone.
"""

import argparse

import torch
from timing import in_turns, ratio, show
from torch import Tensor
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from hf_labels.losses.lad import LabelNoiser, class_codes, dual_path_consistency, label_channel
from hf_labels.losses.lad import segmentation_cross_entropy as cross_entropy
from hf_labels.losses.soft_targets import channel_wise_distillation
from hf_labels.models.lad import add_input_channel

CLASSES = 21


def replaced_in_turn(labels: Tensor, codes: Tensor, gain: float = 1.7) -> Tensor:
    """Class by class, into a second array, so that no value is replaced twice."""
    out = torch.zeros(labels.shape)
    for place, code in enumerate(codes.tolist()):
        out[labels == (255 if place == CLASSES else place)] = code
    return gain * out[:, None]


def kl_of_maps(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Channel-wise distillation with the functions of torch."""
    ours = (student.flatten(2) / temperature).log_softmax(-1).flatten(0, 1)
    theirs = (teacher.detach().flatten(2) / temperature).log_softmax(-1).flatten(0, 1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (16, 128, 128))
    labels[:, :3] = 255
    codes = class_codes(CLASSES).float()
    difference = (label_channel(labels, codes) - replaced_in_turn(labels, codes)).abs().max().item()
    jobs = {
        "class by class": lambda: replaced_in_turn(labels, codes),
        "one look-up (ours)": lambda: label_channel(labels, codes),
    }
    show(f"label channel, 16 maps of 128 x 128 (difference {difference:.1e})", in_turns(jobs, args.turns))

    one, two = torch.randn(2, 16, CLASSES, 64, 64, requires_grad=True)
    difference = (kl_of_maps(one, two) - channel_wise_distillation(one, two, 4.0)).abs().item()
    jobs = {
        "kl_div of torch": lambda: kl_of_maps(one, two).backward(),
        "channel-wise distillation (ours)": lambda: channel_wise_distillation(one, two, 4.0).backward(),
    }
    show(f"16 maps of {CLASSES} x 64 x 64, with gradient (difference {difference:.1e})", in_turns(jobs, args.turns))

    sizes = {"hidden_sizes": [32, 64, 160, 256], "depths": [2] * 4, "decoder_hidden_size": 64, "num_labels": CLASSES}
    student = SegformerForSemanticSegmentation(SegformerConfig(**sizes))
    teacher = add_input_channel(SegformerForSemanticSegmentation(SegformerConfig(**sizes)))
    images = torch.randn(args.batch, 3, args.size, args.size)
    maps = torch.randint(0, CLASSES, (args.batch, args.size, args.size))
    noiser = LabelNoiser(CLASSES)

    def plain_step() -> None:
        cross_entropy(student(pixel_values=images).logits, maps).backward()

    def teacher_step() -> None:
        rows = torch.cat([torch.cat([images, noiser.random(maps)], 1) for _ in range(2)])
        first, second = teacher(pixel_values=rows).logits.chunk(2)
        losses = cross_entropy(first, maps) + cross_entropy(second, maps), dual_path_consistency(first, second)
        (losses[0] + 5.0 * losses[1]).backward()

    def student_step() -> None:
        with torch.no_grad():
            target = teacher(pixel_values=torch.cat([images, noiser.fixed(maps)], 1)).logits
        logits = student(pixel_values=images).logits
        (cross_entropy(logits, maps) + 3.0 * channel_wise_distillation(logits, target, 4.0)).backward()

    steps = {"cross-entropy": plain_step, "LAD student": student_step, "LAD teacher": teacher_step}
    times = in_turns(steps, args.turns)
    show(f"training step, SegFormer-B0, {args.batch} images of {args.size} x {args.size}, one thread", times)
    shares = ", ".join(f"{name} {ratio(times, name, 'cross-entropy'):.1f}" for name in list(steps)[1:])
    print(f"times a plain step: {shares}")


if __name__ == "__main__":
    main()
