"""What do batched courses and logits at candidates only save? MCL against a naive loop over the courses, in one run.

    python examples/benchmarks/mcl_electra.py

Both take the same training step on all five courses. The naive loop runs each course on its own: stock forwards with
logits at every token, and first passes that are computed again for the corrections. Steps are taken in turns, so that
a busy machine slows both alike; ELECTRA (replaced tokens only) is timed beside them as the unit.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timing import in_turns

from hf_labels.losses.mcl_electra import correction_notebook, detection_loss, put_tokens, sample_tokens
from hf_labels.losses.mcl_electra_noise import BatchNoise
from hf_labels.models.mcl_electra import MCLElectraForPreTraining
from hf_labels.models.mcl_electra_config import MCLElectraConfig
from hf_labels.models.mcl_electra_passes import first_pass

COURSES = ("rtd", "std", "itd", "re_rtd", "re_std")


def naive_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The five courses one after the other, as a plain script would write them."""
    config, total, noise = model.config, torch.zeros(()), BatchNoise(len(ids), ids.device)
    maskable = mask & ~torch.isin(ids, torch.tensor(config.special_token_ids))
    for name in COURSES:
        first = first_pass(name.removeprefix("re_"), ids, mask, maskable, None, noise, config)
        real = first.attention_mask
        logits = model.generator(first.read, attention_mask=real.long()).logits
        read = put_tokens(
            first.read, first.predict, sample_tokens(logits[first.predict], torch.rand(first.predict.sum()))
        )
        if name.startswith("re_"):
            scores = model.discriminator(read, attention_mask=real.long()).logits
            pages = correction_notebook(first.original, read, scores, real)
            caught = pages == 4
            logits = model.generator(put_tokens(read, caught, config.mask_token_id), attention_mask=real.long()).logits
            total = total + F.cross_entropy(logits.transpose(1, 2), first.original.masked_fill(~caught, -100))
            read = put_tokens(read, caught, sample_tokens(logits[caught], torch.rand(caught.sum())))
            where = pages >= 2
        else:
            where = real
            if name != "itd":
                target = first.original.masked_fill(~first.predict, -100)
                total = total + F.cross_entropy(logits.transpose(1, 2), target)
        scores = model.discriminator(read, attention_mask=real.long()).logits
        total = total + config.disc_weight * detection_loss(scores, (read != first.original).long(), where)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    sizes = {"vocab_size": args.vocabulary, "embedding_size": 128, "max_position_embeddings": 2 * args.length}
    config = MCLElectraConfig(
        generator_config={**sizes, "hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 4},
        discriminator_config={**sizes, "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 4},
    )
    model = MCLElectraForPreTraining(config)
    ids = torch.randint(1000, args.vocabulary, (args.batch, args.length))
    ids[:, 0], ids[:, -1] = 101, 102
    mask = torch.ones_like(ids, dtype=torch.bool)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        model.zero_grad()
        loss().backward()

    jobs = {
        "naive loop over five courses": lambda: step(lambda: naive_loss(model, ids, mask)),
        "MCL, five courses": lambda: step(lambda: model(ids, mask).loss),
        "MCL, three first courses": lambda: step(lambda: model(ids, mask, courses=COURSES[:3]).loss),
        "ELECTRA (rtd)": lambda: step(lambda: model(ids, mask, courses=COURSES[:1]).loss),
    }
    times = in_turns(jobs, args.turns)
    size = f"batch {args.batch} x {args.length}, vocabulary {args.vocabulary}, {args.threads} thread(s)"
    print(f"{size}, {args.turns} turns; ratios to MCL with five courses")
    base = times["MCL, five courses"]
    for name, values in times.items():
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        print(
            f"  {name:32s} {1e3 * statistics.median(values):9.1f} ms   ratio {statistics.median(ratios):.2f} "
            f"(single turns {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
