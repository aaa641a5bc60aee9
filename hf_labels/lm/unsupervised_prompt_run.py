"""One run of unsupervised prompt learning: reliable set, steps, rounds of labelling, best prompt."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import torch

from hf_labels.data.rng import derive_seed
from hf_labels.labels.pseudo import PseudoLabelSet, select_threshold, select_top_k
from hf_labels.labels.unsupervised_prompt_learning import ReliableSetEmpty
from hf_labels.lm.errors import BudgetExceeded
from hf_labels.losses.unsupervised_prompt_learning import label_loss, variance_reduced_gradient
from hf_labels.models.unsupervised_prompt_learning import PromptClassifier, PromptDistribution

logger = logging.getLogger(__name__)


class PromptRun:
    """The state of one `fit`; every draw comes from `(seed, step)`, so a repeated run asks the same questions."""

    def __init__(self, learner: Any, texts: list[str], vocabulary: list[str]) -> None:
        self.args, self.texts, self.lm = learner.args, texts, learner.lm
        args = self.args
        self.classifier = PromptClassifier(
            lm=learner.lm,
            labels=learner.labels,
            label_words=learner.label_words,
            template=learner.template,
            vocabulary=vocabulary,
            k_demo=args.k_demo,
            demo_strategy=args.demo_strategy,
            seed=args.seed,
            initial_prompt=args.initial_prompt,
            param=args.param,
            embedder=learner.embedder,
            settings=args.changed(),
        )
        self.distribution = PromptDistribution(args.prompt_length, len(vocabulary), args.param)
        optimizers: dict[str, type[torch.optim.Optimizer]] = {"logits": torch.optim.Adam, "simplex": torch.optim.SGD}
        parameters = [self.distribution.theta]
        self.optimizer = optimizers[args.param](parameters, lr=args.step_size)  # type: ignore[call-arg]
        size = len(texts)
        self.labels, self.confidence = np.full(size, -1), np.zeros(size)
        self.round = np.full(size, -1)
        self.source = np.full(size, "zero-shot", dtype=object)
        self.reliable = self.dev = np.zeros(0, dtype=np.int64)
        self.steps, self.rounds, self.relabelling = 0, 0, True
        self.best: tuple[float, list[int], np.ndarray] | None = None
        self.events = _Events(learner.callbacks, args)

    def run(self) -> PromptClassifier:
        self._label_first()
        if not self.classifier.stopped_early:
            try:
                if self.args.prompt_length:
                    self._train()
                self._use_best()
                self._label_rest()
            except BudgetExceeded as error:
                logger.warning("%s Training ends early.", error)
                self.classifier.stopped_early = True
                self._use_best()
        found = PseudoLabelSet(
            np.arange(len(self.texts)), self.labels, self.confidence, self.round, self.source.astype(str),
            self.classifier.labels,
        )  # fmt: skip
        self.classifier.pseudo_labels = found.to_dataset(text=self.texts)
        return self.classifier

    # ---- labels -----------------------------------------------------------------------------------------------------

    def _label_first(self) -> None:
        """Stage 1: no demonstrations, no learned tokens."""
        everything = np.arange(len(self.texts))
        k_demo, self.classifier.k_demo = self.classifier.k_demo, 0
        try:
            self._give_labels(everything, self.args.initial_prompt, "zero-shot")
        except BudgetExceeded as error:
            if not (self.labels >= 0).any():
                raise
            logger.warning("%s Nothing is learned.", error)
            self.classifier.stopped_early = True
        finally:
            self.classifier.k_demo = k_demo
        self.reliable = self._surest(everything)
        self._warn_of_missing_classes()
        if not len(self.reliable):
            raise ReliableSetEmpty(
                f"No text is labelled with a confidence of `confidence_threshold`={self.args.confidence_threshold} or "
                f"more; the highest is {self.confidence.max():.4f}. Lower it, or use `selection='balanced'`."
            )
        self.round[self.reliable] = 0
        self.dev = self._held_out()
        self._refresh_pool()
        others = len(set(self.classifier.demo_texts)) - 1
        if self.args.k_demo > others and not self.classifier.stopped_early:
            raise ValueError(
                f"`k_demo`={self.args.k_demo} is larger than the {others} other texts in the pool of reliable ones. "
                "Lower `k_demo`, or raise `top_k` (or lower `confidence_threshold` or `dev_share`)."
            )

    def _surest(self, rows: np.ndarray) -> np.ndarray:
        confidence, labels = self.confidence[rows], self.labels[rows]
        if self.args.selection == "balanced":
            return rows[select_top_k(confidence, labels, self.args.top_k)]
        return rows[select_threshold(np.where(labels >= 0, confidence, -1.0), self.args.confidence_threshold)]

    def _warn_of_missing_classes(self) -> None:
        names = self.classifier.labels
        never = [names[c] for c in range(len(names)) if not (self.labels == c).any()]
        if never:
            logger.warning("No text is labelled as: %s. These classes have no demonstrations.", ", ".join(never))

    def _held_out(self) -> np.ndarray:
        if not self.args.prompt_length:
            return np.zeros(0, dtype=np.int64)
        rng, parts = np.random.default_rng([self.args.seed, 0]), [np.zeros(0, dtype=np.int64)]
        for label in np.unique(self.labels[self.reliable]):
            rows = rng.permutation(self.reliable[self.labels[self.reliable] == label])
            parts.append(rows[: int(self.args.dev_share * len(rows))])
        return np.sort(np.concatenate(parts))

    @property
    def pool(self) -> np.ndarray:
        """Rows that train the prompt and serve as demonstrations."""
        return np.setdiff1d(np.flatnonzero(self.round >= 0), self.dev)

    def _refresh_pool(self) -> None:
        rows = self.pool
        self.classifier.set_demonstrations([self.texts[row] for row in rows], self.labels[rows].tolist())

    def _log_probs(self, rows: np.ndarray, prompts: list[str], draw: int = 0, demos: bool = True) -> np.ndarray:
        """`(len(prompts), len(rows), C)`: the same texts with the same demonstrations under each prompt."""
        questions = self.classifier.questions([self.texts[row] for row in rows], "", draw, rows.tolist())
        if not demos:
            questions = [dataclasses.replace(question, demos=()) for question in questions]
        asked = [dataclasses.replace(question, prompt=prompt) for prompt in prompts for question in questions]
        found = self.classifier._scorer.log_probs(asked)
        return found.reshape(len(prompts), len(rows), -1)

    def _give_labels(self, rows: np.ndarray, prompt: str, source: str) -> bool:
        """Label rows; a part of them if the budget ends. Returns whether a label changed."""
        error = None
        try:
            logs = self._log_probs(rows, [prompt])[0]
        except BudgetExceeded as stop:
            if stop.partial is None:  # the demonstrations could not be chosen: nothing was asked
                raise
            logs, error = stop.partial, stop
        found = PseudoLabelSet.from_probs(np.exp(logs))
        known = found.labels >= 0
        rows = rows[known]
        changed = bool((self.labels[rows] != found.labels[known]).any())
        self.labels[rows], self.confidence[rows] = found.labels[known], found.confidence[known]
        self.source[rows] = source
        if error is not None:
            raise error
        return changed

    def _not_fixed(self) -> np.ndarray:
        fixed = self.dev if self.args.revise_reliable else self.reliable
        return np.setdiff1d(np.arange(len(self.texts)), fixed)

    def _relabel(self) -> None:
        """A round: new labels for what is not fixed, and the surest join the pool."""
        self.rounds += 1
        prompt = self.classifier.prompt_of(self.distribution.mode().tolist())
        self.relabelling = self._give_labels(self._not_fixed(), prompt, "prompt")
        joined = self._surest(np.flatnonzero(self.round < 0))
        self.round[joined] = self.rounds
        self._refresh_pool()

    def _label_rest(self) -> None:
        """The chosen prompt labels what is in no pool, exactly as it will label new texts."""
        self._give_labels(np.flatnonzero(self.round < 0), self.classifier.prompt, "prompt")

    # ---- prompt -----------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        args = self.args
        self.events("on_train_begin", 0)
        try:
            self._steps(args)
        finally:
            self.events("on_train_end", self.steps)

    def _steps(self, args: Any) -> None:
        for step in range(1, args.max_steps + 1):
            before = self.lm.usage
            entry = {"step": step, "loss": self._step(step), "entropy": self.distribution.entropy()}
            if step % args.relabel_every == 0 or step == args.max_steps:
                entry |= self._try_mode()
                if self.relabelling and step < args.max_steps:
                    self._relabel()
            calls, cached = self.lm.usage.calls - before.calls, self.lm.usage.cached_calls - before.cached_calls
            entry |= {"calls": calls, "cache_hit_rate": cached / max(1, calls + cached), "pool": len(self.pool)}
            if step % args.logging_steps == 0:
                self.classifier.log_history.append(entry)
                self.events("on_log", step, logs=entry)
            if self.events("on_step_end", step):
                break

    def _step(self, step: int) -> float:
        args = self.args
        rng = np.random.default_rng([args.seed, step, 1])
        pool = self.pool
        rows = np.sort(rng.choice(pool, min(args.batch_size, len(pool)), replace=False))
        generator = torch.Generator().manual_seed(derive_seed(args.seed, step, 2))
        indices = self.distribution.sample(args.sample_size, generator)
        prompts = [self.classifier.prompt_of(ids) for ids in indices.tolist()]
        draw = step if args.resample_demos else 0
        logs = torch.from_numpy(self._log_probs(rows, prompts, draw, args.train_with_demos))
        losses = label_loss(logs, torch.from_numpy(self.labels[rows]), args.loss, args.margin)
        form = "logits" if args.param == "logits" else "reference"
        theta = self.distribution.theta
        theta.grad = variance_reduced_gradient(self.distribution.probs(), indices, losses, form)
        torch.nn.utils.clip_grad_norm_([theta], args.max_grad_norm)
        self.optimizer.step()
        self.distribution.project_()
        self.steps = step
        return float(losses.mean())

    def _try_mode(self) -> dict[str, float]:
        """Loss of the most probable prompt on the dev part; a copy of the best one is kept."""
        if not len(self.dev):
            return {}
        ids = self.distribution.mode().tolist()
        logs = self._log_probs(self.dev, [self.classifier.prompt_of(ids)], demos=self.args.train_with_demos)
        labels = torch.from_numpy(self.labels[self.dev])
        loss = float(label_loss(torch.from_numpy(logs[0]), labels, self.args.loss, self.args.margin))
        if self.best is None or loss < self.best[0]:
            self.best = (loss, ids, self.distribution.theta.detach().numpy().copy())
        return {"dev_loss": loss}

    def _use_best(self) -> None:
        if self.best is not None:
            _, self.classifier.prompt_ids, self.classifier.theta = self.best
            return
        if self.steps:
            self.classifier.prompt_ids = self.distribution.mode().tolist()
        self.classifier.theta = self.distribution.theta.detach().numpy().copy()


class _Events:
    """The events of `Trainer`, for callbacks that log."""

    def __init__(self, callbacks: list[Any], args: Any) -> None:
        self.callbacks, self.args = callbacks, args
        if callbacks:
            from transformers import TrainerControl, TrainerState

            self.state, self.control = TrainerState(max_steps=args.max_steps), TrainerControl()

    def __call__(self, event: str, step: int, **more: Any) -> bool:
        """Tell all; returns whether one of them asks to stop."""
        if not self.callbacks:
            return False
        self.state.global_step = step
        self.state.epoch = step / max(1, self.args.max_steps)
        if event == "on_log":
            self.state.log_history.append(more["logs"])
        for callback in self.callbacks:
            self.control = getattr(callback, event)(self.args, self.state, self.control, **more) or self.control
        return bool(self.control.should_training_stop)
