"""`ActiveDistillation`: buy soft labels from a teacher that errs, a budget per round, and distil them."""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from hf_labels.data.memory import add_index
from hf_labels.data.rng import isolated_rng
from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.labels.columns import require_columns
from hf_labels.labels.kinds import check_column
from hf_labels.labels.robust_active_distillation import errors_of_rate
from hf_labels.metrics import make_calibration_metrics
from hf_labels.metrics.functional import wrong_query_rate
from hf_labels.trainers.places import Place, RoundsResult, is_main, read_json, wait, write_json
from hf_labels.trainers.queries import ask_once, fit_queries, read_answers
from hf_labels.trainers.robust_active_distillation_parts import GAINS, STRATEGIES, ask_teacher, choose, predict_probs
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments

logger = logging.getLogger(__name__)

_CHOSEN = "chosen.json"
_CHECK = "teacher_check.jsonl"


class DistilledStudentTrainer(SoftLabelTrainer):
    """Trainer of the students of [`ActiveDistillation`]."""

    _slug = "robust_active_distillation"


class ActiveDistillation:
    """Rounds of: score the pool with the student, choose rows, ask the teacher, train the student anew.

    The student learns from the labelled rows (one-hot) and all soft labels bought so far. Every answer is on disk
    before the next question, so an interrupted run (call `run` again with the same `output_dir`) pays for nothing
    twice.

    Args:
        model_init (callable): `() -> PreTrainedModel`, a fresh student.
        teacher (`nn.Module` or callable): A module gets batches of `data_collator` and gives logits; it is moved to
            the device of `args`. A callable gets rows (a dict of columns, without labels) and returns probabilities
            `(B, C)`; `None` for a refused row. An answer that is no distribution over C classes is left out, and
            counts as spent.
        labeled (`datasets.Dataset`): Inputs and `labels` (-1 = missing); at least one labelled row.
        pool (`datasets.Dataset`): The same inputs. A column `index` names rows in the log. `labels`, if there, only
            serve to report `wrong_query_rate`.
        output_dir (`str`): Everything that is needed to resume.
        budget (`int` or sequence of `int`): Rows to ask about per round, or of each round.
        rounds (`int`, *optional*): Number of rounds.
        strategy (`str`, *optional*, defaults to `"rad"`): `rad`, or a baseline: `margin` and `entropy` (the largest),
            `coreset` (k-centre on the student's features), `uniform`.
        teacher_error (`float`, *optional*): The teacher's error rate, in [0, 1].
        holdout (`datasets.Dataset`, *optional*): Labelled rows on which the error rate is estimated instead,
            `(wrong + 1) / (checked + 2)`; a refused row counts as wrong. These questions are not part of the budget.
            `rad` needs one of the two.
        gain (`str` or callable, *optional*, defaults to `"margin"`): What a right answer is worth: `margin` (1 minus
            the student's margin), `entropy`, or student probabilities `(n, C)` -> gains `(n,)`.
        wrong_reward (`float`, *optional*, defaults to `-1.0`): See [`rad_distribution`].
        args ([`SoftLabelTrainingArguments`], *optional*): Of every training; `output_dir` in it does not count.
        eval_dataset (`datasets.Dataset`, *optional*): Evaluated after each round.
        warm_start (`bool`, *optional*, defaults to `False`): Go on from the last student instead of starting anew.
        max_scored (`int`, *optional*): Score at most so many random rows of the pool per round.
        seed (`int`, *optional*, defaults to `0`): Of the choice of rows. `args.seed` is that of the trainings.
        data_collator, processing_class, compute_metrics (*optional*): As in `Trainer`; metrics are by default those of
            [`make_calibration_metrics`].

    Attributes:
        history (`list[dict]`): Entry 0 is the student before any query; then one per round: `spent`, `unanswered`,
            evaluation numbers (`accuracy`, ...), with `rad` `error_rate` (told or estimated), `k_star`, `value`,
            `num_errors`, `fallback`; with known labels `wrong_query_rate` of all answers so far.
        trainer ([`SoftLabelTrainer`]): That of the last round.

    Raises:
        ValueError: For options that do not go together, an empty pool, no labelled row, or none in `holdout`.
        KeyError: If a column is missing.
        TypeError: If the student is no `PreTrainedModel`, or `args` are others.

    Source: Baykal et al., arXiv:2210.01213, algorithm 1; retraining from the initial weights is our reading.
    """

    def __init__(
        self,
        model_init: Callable[[], PreTrainedModel],
        teacher: Any,
        labeled: Any,
        pool: Any,
        *,
        output_dir: str | Path,
        budget: int | Sequence[int],
        rounds: int | None = None,
        strategy: str = "rad",
        teacher_error: float | None = None,
        holdout: Any = None,
        gain: str | Callable[[Any], np.ndarray] = "margin",
        wrong_reward: float = -1.0,
        args: SoftLabelTrainingArguments | None = None,
        eval_dataset: Any = None,
        warm_start: bool = False,
        max_scored: int | None = None,
        seed: int = 0,
        data_collator: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
    ) -> None:
        self.output = Path(output_dir)
        args = SoftLabelTrainingArguments(str(output_dir)) if args is None else args
        if not isinstance(args, SoftLabelTrainingArguments):
            raise TypeError(f"`args` must be SoftLabelTrainingArguments, got {type(args).__name__}.")
        if strategy not in STRATEGIES:
            raise ValueError(f"`strategy` must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
        if isinstance(gain, str) and gain not in GAINS:
            raise ValueError(f"`gain` must be {' or '.join(GAINS)} or a function, got {gain!r}.")
        if strategy == "rad" and (teacher_error is None) == (holdout is None):
            raise ValueError(
                "RAD must know how often the teacher errs: give `teacher_error` or `holdout`, one of them."
            )
        if teacher_error is not None:
            errors_of_rate(teacher_error, 0)
        self.model_init, self.args = model_init, args
        self.teacher = teacher.to(args.device) if isinstance(teacher, nn.Module) else teacher
        self.budget, self.rounds, self.strategy = budget, rounds, strategy
        self.teacher_error, self.holdout, self.wrong_reward = teacher_error, holdout, wrong_reward
        self.gain_name = gain if isinstance(gain, str) else "function"
        self.gain = GAINS[gain] if isinstance(gain, str) else gain
        self.eval_dataset, self.warm_start, self.max_scored, self.seed = eval_dataset, warm_start, max_scored, seed
        self.data_collator, self.processing_class = data_collator, processing_class
        self.compute_metrics = make_calibration_metrics() if compute_metrics is None else compute_metrics
        self.trainer: Any = None
        self.history: list[dict[str, Any]] = []
        model = self._new_model()
        self.num_labels, self._model_class = int(model.config.num_labels), type(model)
        self._names = getattr(model.config, "id2label", None)
        self._set_data(labeled, pool)

    def _set_data(self, labeled: Any, pool: Any) -> None:
        if len(pool) == 0:
            raise ValueError("`pool` is empty: there is nothing to ask about.")
        keep = self._labelled_rows(labeled)
        pool = add_index(pool)
        inputs = [name for name in pool.column_names if name not in ("labels", "soft_labels", "index")]
        require_columns(labeled, inputs)
        if self.holdout is not None:
            require_columns(self.holdout, [*inputs, "labels"])
            self._labelled_rows(self.holdout)  # refuses those without any
        one_hot = np.eye(self.num_labels, dtype=np.float32)[np.asarray(labeled["labels"][:])[keep]]
        self._labeled = _with_soft_labels(labeled.select(keep).select_columns(inputs), one_hot)
        self._inputs = pool.select_columns(inputs)
        self._ids = np.asarray(pool["index"][:], dtype=np.int64)
        self._place_of = {int(identity): place for place, identity in enumerate(self._ids)}
        self._truth = np.asarray(pool["labels"][:]) if "labels" in pool.column_names else None

    def _labelled_rows(self, data: Any) -> np.ndarray:
        check_column(data, "hard", num_labels=self.num_labels, min_classes=1)
        return np.flatnonzero(np.asarray(data["labels"][:]) >= 0)

    # What is returned

    def run(self) -> PreTrainedModel:
        """Run, or continue, all rounds. Returns the last student, in eval mode."""
        settings = {
            "strategy": self.strategy,
            "gain": self.gain_name,
            "wrong_reward": self.wrong_reward,
            "teacher_error": self.teacher_error,
            "warm_start": self.warm_start,
            "max_scored": self.max_scored,
            "seed": [self.seed, self.args.seed],
        }
        result = fit_queries(
            self._query,
            self._oracle,
            self._update,
            pool=self._ids.tolist(),
            budget=self.budget,
            rounds=self.rounds,
            output_dir=self.output,
            load=self._load,
            oracle_batch=self.args.per_device_eval_batch_size,
            settings=settings,
        )
        self.history = [self._start()[1], *result.history]
        model = self._start()[0] if result.state is None else result.state
        if self.trainer is None:
            self.trainer = self._make_trainer(model, None, self.output)
        return model.eval()

    def area(self, metric: str = "accuracy") -> float:
        """Mean height of the curve of a number over the queries, from 0 queries on."""
        return RoundsResult(None, self.history).area(metric)

    @property
    def query_log(self) -> Any:
        """`datasets.Dataset` of all chosen rows: `index`, `round`, `inclusion` (-1: not random), `gain`."""
        from datasets import Dataset

        columns: dict[str, list[Any]] = {"index": [], "round": [], "inclusion": [], "gain": []}
        for number, path in enumerate(sorted(self.output.glob(f"round-*/{_CHOSEN}"))):
            found = read_json(path)
            columns["round"] += [number] * len(found["index"])
            for name in ("index", "inclusion", "gain"):
                columns[name] += found[name]
        return Dataset.from_dict(columns)

    def soft_labels(self, folder: str | Path | None = None) -> SoftLabelStore:
        """The bought labels, as a store keyed by `index`.

        Raises:
            ValueError: If there are none.
        """
        import torch

        answers = read_answers(self.output)
        ids = sorted(answers)
        info = StoreInfo("dense", self.num_labels, codec="float32", id2label=self._names)
        info.extra["queries"] = {"strategy": self.strategy, "rounds": len(self.history) - 1, "bought": len(ids)}
        probs = torch.tensor([answers[row] for row in ids], dtype=torch.float64).reshape(-1, self.num_labels)
        return SoftLabelStore.from_arrays(info, folder, example_ids=ids, probs=probs)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Push the bought labels and the query log as a data set; options as in `SoftLabelStore.push_to_hub`."""
        import tempfile

        from huggingface_hub import HfApi

        done = self.soft_labels().push_to_hub(repo_id, **options)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "query_log.parquet"
            self.query_log.to_parquet(str(path))
            HfApi(token=options.get("token")).upload_file(
                path_or_fileobj=str(path),
                path_in_repo="queries/query_log.parquet",
                repo_id=repo_id,
                repo_type="dataset",
            )
        return done

    # Callbacks of the loop

    def _query(self, state: Any, candidates: np.ndarray, size: int, place: Place) -> Sequence[int]:
        model = self._start()[0] if state is None else state
        rng = np.random.default_rng([self.seed, place.number, 1])  # a 0 at the end would be the stream of `seed` alone
        if self.max_scored is not None and len(candidates) > self.max_scored:
            candidates = np.sort(rng.choice(candidates, size=max(self.max_scored, size), replace=False))
        trainer = self._make_trainer(model, None, place.folder)
        rows = self._inputs.select([self._place_of[int(row)] for row in candidates])
        coreset = self.strategy == "coreset"
        probs, features = predict_probs(trainer, rows, coreset)
        pair = None
        if features is not None:
            known = predict_probs(trainer, self._bought().remove_columns("soft_labels"), True)[1]
            assert known is not None
            pair = (features, known)
        error_rate = self._error_rate() if self.strategy == "rad" else None
        found = choose(
            self.strategy,
            probs,
            size,
            rng,
            gain=self.gain,
            error_rate=error_rate,
            wrong_reward=self.wrong_reward,
            features=pair,
        )
        inclusion = np.full(len(candidates), -1.0) if found.inclusion is None else found.inclusion
        chosen: dict[str, Any] = {
            "index": candidates[found.rows].tolist(),
            "inclusion": inclusion[found.rows].tolist(),
            "gain": found.gains[found.rows].tolist(),
            "numbers": {"candidates": len(candidates)},
        }
        if found.solution is not None:
            chosen["numbers"] |= {
                "error_rate": error_rate,
                "num_errors": found.num_errors,
                "k_star": found.solution.k_star,
                "value": found.solution.value,
                "fallback": found.solution.fallback,
            }
        if is_main():
            write_json(place.folder / _CHOSEN, chosen)
        return chosen["index"]

    def _oracle(self, rows: list[int]) -> list[Any]:
        columns = self._inputs[[self._place_of[row] for row in rows]]
        return ask_teacher(self.teacher, columns, self._collator(), self.num_labels)

    def _update(self, state: Any, answers: dict[int, Any], place: Place) -> tuple[Any, dict[str, Any]]:
        model = state if self.warm_start and state is not None else self._new_model()
        if self.warm_start and state is None:
            model = self._start()[0]
        chosen = read_json(place.folder / _CHOSEN)  # nothing is chosen with a budget of 0
        numbers = {} if chosen is None else dict(chosen["numbers"])
        if self._truth is not None and answers:
            truth = [self._truth[self._place_of[row]] for row in answers]
            numbers["wrong_query_rate"] = wrong_query_rate(list(answers.values()), truth)["wrong_query_rate"]
        return model, numbers | self._train(model, place)

    def _load(self, place: Place) -> Any:
        return self._model_class.from_pretrained(place.folder / "model")

    # Trainings

    def _start(self) -> tuple[Any, dict[str, Any]]:
        """The student of the labelled rows alone, and its numbers; trained once."""
        place = Place(-1, "start", self.output / "start")
        record = place.folder / "start.json"
        done = read_json(record)
        if done is not None:
            return self._load(place), done
        place.folder.mkdir(parents=True, exist_ok=True)
        model = self._new_model()
        done = {"round": -1, "name": "start", "spent": 0, "unanswered": 0, **self._train(model, place)}
        wait()
        if is_main():
            write_json(record, done)
        wait()
        return model, done

    def _train(self, model: Any, place: Place) -> dict[str, Any]:
        self.trainer = self._make_trainer(model, self._bought(), place.folder)
        self.trainer.train(resume_from_checkpoint=place.checkpoint)
        self.trainer.save_model(str(place.folder / "model"))
        if self.eval_dataset is None:
            return {}
        found = self.trainer.evaluate()
        speed = ("runtime", "per_second")
        return {
            name.removeprefix("eval_"): value
            for name, value in found.items()
            if name.startswith("eval_") and not name.endswith(speed)
        }

    def _bought(self) -> Any:
        """Labelled rows and all rows with an answer, with `soft_labels`."""
        from datasets import concatenate_datasets

        answers = read_answers(self.output)
        if not answers:
            return self._labeled
        rows = sorted(answers)
        values = np.array([answers[row] for row in rows], dtype=np.float32)
        bought = _with_soft_labels(self._inputs.select([self._place_of[row] for row in rows]), values)
        return concatenate_datasets([self._labeled, bought.cast(self._labeled.features)])

    def _make_trainer(self, model: Any, data: Any, folder: Path) -> DistilledStudentTrainer:
        args = copy.copy(self.args)
        args.output_dir = str(folder)
        return DistilledStudentTrainer(
            model,
            args,
            self.data_collator,
            train_dataset=data,
            eval_dataset=self.eval_dataset,
            processing_class=self.processing_class,
            compute_metrics=self.compute_metrics,
        )

    def _new_model(self) -> Any:
        with isolated_rng(self.args.seed):
            model = self.model_init()
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"`model_init` must make a PreTrainedModel, got {type(model).__name__}.")
        return model

    def _collator(self) -> Any:
        from hf_labels.data.collators import LabelCollator

        return LabelCollator(self.processing_class) if self.data_collator is None else self.data_collator

    def _error_rate(self) -> float:
        if self.teacher_error is not None:
            return self.teacher_error
        known = self._labelled_rows(self.holdout)
        truth = np.asarray(self.holdout["labels"][:])
        inputs = self.holdout.select_columns(self._inputs.column_names)

        def oracle(rows: list[int]) -> list[Any]:
            return ask_teacher(self.teacher, inputs[rows], self._collator(), self.num_labels)

        path, batch = self.output / _CHECK, self.args.per_device_eval_batch_size
        answers = ask_once(oracle, known.tolist(), path, batch)
        wrong = sum(a is None or int(np.argmax(a)) != int(truth[row]) for row, a in answers.items())
        return (wrong + 1) / (len(known) + 2)


def _with_soft_labels(dataset: Any, values: np.ndarray) -> Any:
    from datasets import List, Value

    kind = List(Value("float32"), length=values.shape[1])
    return dataset.add_column("soft_labels", list(values), feature=kind)
