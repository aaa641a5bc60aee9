"""Jacobi decoding against greedy `generate`, and the cost of a pass around the bare model, timed in one run.

    python examples/benchmarks/ceed_vla.py
    python examples/benchmarks/ceed_vla.py --device cuda --dtype bfloat16 --hidden 2048 --layers 16

The weights are random, so the passes of the exact mode say nothing about a trained model; what is measured is what a
pass costs. Three claims are printed: exact decoding gives the tokens of greedy decoding; a pass takes at most 15% more
time than the bare forward calls it is made of; and with an early exit after three passes, as a distilled model allows,
a block of n tokens takes three passes instead of n. All methods take turns, so a busy machine slows all alike, and
on a CPU it is the processor time of the one thread that counts, not the wall clock.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from timing import in_turns
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from hf_labels.generation import jacobi_generate


def milliseconds(values: list[float]) -> float:
    """Median."""
    return 1e3 * statistics.median(values)


def record(model: Any, call: Callable[[], Any]) -> list[tuple[int, int, int]]:
    """Tokens fed, tokens in the cache and logits kept, of each forward of a call."""
    seen = []

    def look(module, args, kwargs):
        held = kwargs["past_key_values"].get_seq_length()
        seen.append((kwargs["input_ids"].shape[1], held, kwargs["logits_to_keep"]))

    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    call()
    hook.remove()
    return seen


def bare(model: Any, ids: torch.Tensor, passes: list[tuple[int, int, int]]) -> Callable[[], None]:
    """The same forwards without anything around them: a list of calls on caches cropped to the same lengths."""
    tokens = torch.cat([ids] * 8, dim=1)

    @torch.no_grad()
    def run() -> None:
        cache = DynamicCache(config=model.config)
        for fed, held, kept in passes:
            surplus = cache.get_seq_length() - held
            if surplus:
                cache.crop(-surplus)
            model(input_ids=tokens[:, :fed], past_key_values=cache, use_cache=True, logits_to_keep=kept)

    return run


def compare(model: Any, batch: int, block: int, prompt: int, turns: int) -> dict[str, float]:
    """One line of the table."""
    device = model.device.type
    ids = torch.randint(3, model.config.vocab_size, (batch, prompt), device=device)
    greedy = {"max_new_tokens": block, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    direct = {"block_size": block, "max_new_tokens": block, "eos_token_id": None}
    three = {"max_jacobi_iter": min(3, block)}
    want = model.generate(ids, **greedy)
    got = model.generate(ids, **greedy, custom_generate=jacobi_generate, block_size=block)
    passes = record(model, lambda: jacobi_generate(model, ids, **direct, **three))
    times = in_turns(
        {
            "generate": lambda: model.generate(ids, **greedy),
            "exact": lambda: model.generate(ids, **greedy, custom_generate=jacobi_generate, block_size=block),
            "three": lambda: model.generate(ids, **greedy, custom_generate=jacobi_generate, block_size=block, **three),
            "direct": lambda: jacobi_generate(model, ids, **direct, **three),
            "bare": bare(model, ids, passes),
        },
        turns,
        time.process_time if device == "cpu" else time.perf_counter,
        torch.cuda.synchronize if device == "cuda" else None,
    )
    exact = jacobi_generate(model, ids, **direct, return_jacobi_stats=True).stats.forward_passes
    return {
        "equal": float((want == got).float().mean()),
        "passes": exact,
        **{name: milliseconds(values) for name, values in times.items()},
        "overhead": min(times["direct"]) / min(times["bare"]) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--prompt", type=int, default=24)
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": args.hidden, "intermediate_size": 3 * args.hidden, "num_hidden_layers": args.layers}
    heads = max(4, args.hidden // 64)
    config = LlamaConfig(vocab_size=args.vocabulary, num_attention_heads=heads, num_key_value_heads=heads, **sizes)
    model = LlamaForCausalLM(config).to(args.device, getattr(torch, args.dtype)).eval()
    print(f"{args.layers} layers, hidden {args.hidden}, {args.dtype} on {args.device}, prompt {args.prompt}")
    print("Medians in ms. `x`: times faster than greedy `generate`. `over`: a direct call over its bare forwards,")
    print("in the fastest turn of each.")
    print("batch block | equal passes | generate  exact     x | 3 passes     x | direct     x |   bare   over")
    over = []
    for batch in args.batches:
        for block in args.blocks:
            row = compare(model, batch, block, args.prompt, args.turns)
            over.append(row["overhead"])
            print(
                f"{batch:5d} {block:5d} | {row['equal']:5.3f} {row['passes']:6.0f} | {row['generate']:8.1f} "
                f"{row['exact']:6.1f} {row['generate'] / row['exact']:5.2f} | {row['three']:8.1f} "
                f"{row['generate'] / row['three']:5.2f} | {row['direct']:6.1f} "
                f"{row['generate'] / row['direct']:5.2f} | {row['bare']:6.1f} {row['overhead']:+6.1%}"
            )
    print(f"overhead of a pass over the bare forward: median {statistics.median(over):+.1%}, most {max(over):+.1%}")


if __name__ == "__main__":
    main()
