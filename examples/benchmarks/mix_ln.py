"""Does moving the norms cost anything? Mix-LN against the stock Pre-LN Llama, timed in one run.

    python examples/benchmarks/mix_ln.py

Same sizes, same batch, training steps and forward passes in turns, so that a busy machine slows both alike. The claim
is a ratio of 1; it is printed with the spread of the single turns, and memory is compared through parameter counts.
"""

import argparse
from typing import Any

import torch
from timing import in_turns, show
from transformers import LlamaConfig, LlamaForCausalLM

from hf_labels.models.layer_diagnostics import gradient_norms
from hf_labels.models.mix_ln import MixLNConfig, MixLNForCausalLM

SIZES = {"vocab_size": 1024, "hidden_size": 128, "intermediate_size": 344, "num_attention_heads": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {**SIZES, "num_hidden_layers": args.layers, "max_position_embeddings": args.length}
    models: dict[str, Any] = {
        "stock Llama (Pre-LN)": LlamaForCausalLM(LlamaConfig(**sizes)),
        "Mix-LN, a quarter Post-LN": MixLNForCausalLM(MixLNConfig(**sizes)),
        "Post-LN": MixLNForCausalLM(MixLNConfig(**sizes, norm_type="post")),
    }
    base = next(iter(models))
    ids = torch.randint(0, SIZES["vocab_size"], (args.batch, args.length))
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}

    def step(name: str) -> None:
        optimizers[name].zero_grad()
        models[name](input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizers[name].step()

    def forward(name: str) -> None:
        with torch.no_grad():
            models[name](input_ids=ids, use_cache=False)

    def generate(name: str) -> None:
        models[name].generate(ids[:1, :8], max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=0)

    shape = f"{args.layers} layers, hidden {SIZES['hidden_size']}, batch {args.batch} x {args.length}"
    print(f"{shape}, one thread, {args.turns} turns")
    for name, model in models.items():
        print(f"  {name:32s} {model.num_parameters()} parameters")
    for title, job in (("training step", step), ("forward", forward)):
        show(title, in_turns({name: lambda n=name, j=job: j(n) for name in models}, args.turns), base)
    short = max(3, args.turns // 5)
    show("16 tokens with a cache", in_turns({name: lambda n=name: generate(n) for name in models}, short), base)
    mix = list(models)[1]
    jobs = {"training step": lambda: step(mix), "gradient norms of all layers": lambda: gradient_norms(models[mix])}
    show("what one measurement of GradientNormCallback costs", in_turns(jobs, args.turns), "training step")


if __name__ == "__main__":
    main()
