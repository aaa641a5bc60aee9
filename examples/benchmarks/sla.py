"""What SLA costs: a training step, a prediction, and the aggregation, next to plain training; timed in turns.

    python examples/benchmarks/sla.py [--turns 15] [--batch 32] [--size 32]

Expected: a step of M transformations takes about M steps of plain training, aggregated inference M passes, the plain
head of self-distillation one. The vectorised aggregation is compared with the loop over j of the authors' code.
"""

import argparse

import torch
from timing import in_turns, show
from transformers import ResNetConfig

from hf_labels.losses.sla import aggregate_logits, plain_loss, sla_sd_loss
from hf_labels.models.sla import SLAConfig, SLAForImageClassification

CLASSES = 100


def loop_aggregation(joint: torch.Tensor, number: int) -> torch.Tensor:
    """As the authors' code writes it."""
    total = 0.0
    for j in range(number):
        total = total + joint[j::number, j::number] / number
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inner = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2], layer_type="basic")
    models = {
        name: SLAForImageClassification(SLAConfig.from_backbone(inner, CLASSES, mode=mode))
        for name, mode in (("plain", "baseline"), ("sla", "sla"))
    }
    images, labels = torch.randn(args.batch, 3, args.size, args.size), torch.randint(0, CLASSES, (args.batch,))
    number = models["sla"].config.num_transformations

    def plain_step() -> None:
        plain_loss(models["plain"](images).logits, labels).backward()

    def sla_step() -> None:
        output = models["sla"](images, transform=True)
        sla_sd_loss(output.joint_logits, output.logits, labels, number)["loss"].backward()

    @torch.no_grad()
    def predict(name: str) -> None:
        models[name].eval()(images)

    print(f"ResNet of 6 basic blocks, {args.batch} images of {args.size} x {args.size}, M = {number}, one thread")
    show("training step", in_turns({"plain": plain_step, "SLA+SD": sla_step}, args.turns))
    for model in models.values():
        model.eval()
    jobs = {
        "plain": lambda: predict("plain"),
        "SLA+SD, plain head": lambda: predict("sla"),
        "SLA, aggregated": lambda: models["sla"].predict_aggregated(images),
    }
    show("prediction", in_turns(jobs, args.turns))
    for count, classes in ((4, 1000), (24, 200)):
        joint = torch.randn(args.batch * count, classes * count)
        difference = (loop_aggregation(joint, count) - aggregate_logits(joint, count)).abs().max().item()
        jobs = {
            "loop over j (the authors')": lambda j=joint, m=count: loop_aggregation(j, m),
            "one diagonal (ours)": lambda j=joint, m=count: aggregate_logits(j, m),
        }
        show(f"aggregation, M = {count}, {classes} classes (difference {difference:.1e})", in_turns(jobs, args.turns))


if __name__ == "__main__":
    main()
