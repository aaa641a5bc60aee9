"""Graph embeddings next to PyKEEN on the same triples, and groups of ancestors next to networkx.

    python examples/benchmarks/kg_zero_shot.py [--epochs 20] [--turns 3]

PyKEEN and networkx are extras of this benchmark (`pip install pykeen networkx`); a line whose peer is not there is
left out. PyKEEN trains TransE with the same size, negatives, loss, optimizer and epochs, and ranks the same test part.
"""

import argparse
import importlib.util
import logging
import tempfile
import time
from typing import Any

import numpy as np
import torch
from timing import Jobs, in_turns, show

from hf_labels.data.kg_zero_shot import KnowledgeGraph
from hf_labels.data.offline_graphs import load_triples
from hf_labels.labels.kg_zero_shot import distance_groups
from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingModel
from hf_labels.trainers.kg_zero_shot import KGEmbeddingTrainer, KGEmbeddingTrainingArguments, triple_dataset


def ours(kg: KnowledgeGraph, test: np.ndarray, every: np.ndarray, epochs: int) -> dict[str, float]:
    torch.manual_seed(0)
    model = KGEmbeddingModel.from_graph(kg, hidden_size=64)
    with tempfile.TemporaryDirectory() as folder:
        args = KGEmbeddingTrainingArguments(
            folder, num_train_epochs=epochs, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=10_000
        )
        KGEmbeddingTrainer(model, args, train_dataset=triple_dataset(kg.triples)).train()
    start = time.process_time()
    scores = model.evaluate_ranks(test, every)
    return scores | {"ranking_s": time.process_time() - start}


def pykeens(epochs: int) -> dict[str, float]:
    from pykeen.pipeline import pipeline

    result: Any = pipeline(
        dataset="umls",
        model="TransE",
        model_kwargs={"embedding_dim": 64, "scoring_fct_norm": 1},
        loss="marginranking",
        loss_kwargs={"margin": 1.0},
        optimizer="adam",
        optimizer_kwargs={"lr": 1e-2},
        training_kwargs={"num_epochs": epochs, "batch_size": 512, "use_tqdm": False},
        negative_sampler_kwargs={"num_negs_per_pos": 8},
        evaluator_kwargs={"filtered": True},
        evaluation_kwargs={"use_tqdm": False},
        random_seed=0,
        device="cpu",
    )
    return {name: result.get_metric(f"both.realistic.{name}") for name in ("inverse_harmonic_mean_rank", "hits_at_10")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    data = load_triples("umls")
    kg = KnowledgeGraph.from_triples(data["train"])
    valid, test = (kg.numbered(data[part], unknown="skip") for part in ("valid", "test"))
    every = np.concatenate([kg.triples, valid, test])
    jobs: Jobs = {}
    if importlib.util.find_spec("class_resolver"):
        jobs["PyKEEN"] = lambda: print("   ", pykeens(args.epochs))
    jobs["ours"] = lambda: print("   ", ours(kg, test, every, args.epochs))
    show(f"TransE on UMLS, {args.epochs} epochs and filtered ranks", in_turns(jobs, args.turns, time.process_time))
    rng = np.random.default_rng(0)
    edges = [(node, int(rng.integers(max(0, node - 2000), node))) for node in range(1, 20_000)]
    jobs = {"ours": lambda: distance_groups(edges, 20_000, 4)}
    if importlib.util.find_spec("networkx"):
        import networkx as nx

        graph = nx.DiGraph(edges)
        jobs = {"networkx": lambda: dict(nx.all_pairs_shortest_path_length(graph))} | jobs
        lengths: dict[int, dict[int, int]] = dict(nx.all_pairs_shortest_path_length(graph))
        pairs = sum(len(group) for group in distance_groups(edges, 20_000, 4))
        print(f"pairs: {pairs} ours, {sum(map(len, lengths.values()))} networkx")
    show("groups of ancestors of 20 000 nodes", in_turns(jobs, args.turns, time.process_time))


if __name__ == "__main__":
    main()
