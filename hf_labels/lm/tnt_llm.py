"""`TaxonomyInducer`: a label taxonomy for a use case, written by a language model from batches of a corpus.

Source: Wan et al., KDD 2024, arXiv:2403.12173, section 3.1; no code is published. Batches and the review follow public
re-implementations; checks, repair and the stop rule are ours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_labels.labels.tnt_llm import Taxonomy, TaxonomyError, TaxonomyLabel, check_table, minibatches

from . import tnt_llm_prompts as prompts
from .base import BlackBoxLM
from .errors import BudgetExceeded
from .types import Request

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaxonomyArguments:
    """Settings of [`TaxonomyInducer`].

    Parameters:
        use_case (`str`): What the labels are for, such as "what do users want?".
        max_labels (`int`, *optional*, defaults to 25): Kmax, at least 2.
        sample_size (`int`, *optional*, defaults to 1000): n1, documents that are read; all, if there are fewer.
        batch_size (`int`, *optional*, defaults to 200): b, documents per request.
        name_words, description_words (`int`, *optional*, defaults to 10 and 30): Limits of the labels.
        explanation_words, edit_words (`int`, *optional*, defaults to 20 and 30): Limits of the comments.
        summary_words (`int`, *optional*, defaults to 20): Words of a summary. 0: no summaries, texts are cut to
            `document_words`.
        document_words (`int`, *optional*, defaults to 1500): Longer documents are summarised in parts.
        prompt_words (`int`, *optional*, defaults to 12000): Words of one request; the batch size is lowered to fit.
        min_updates (`int`, *optional*, defaults to 0): With a single batch: updates on this same batch.
        review (`bool`, *optional*, defaults to `True`): One more update at the end, on random documents of the sample.
        stop_rating (`int`, *optional*), patience (`int`, *optional*, defaults to 2): Stop early when the rating is at
            least this and the table was the same for `patience` updates.
        seed (`int`, *optional*, defaults to 0): Of sample and batches.

    Raises:
        ValueError: For an empty use case, or a number out of range.
    """

    use_case: str
    max_labels: int = 25
    sample_size: int = 1000
    batch_size: int = 200
    name_words: int = 10
    description_words: int = 30
    explanation_words: int = 20
    edit_words: int = 30
    summary_words: int = 20
    document_words: int = 1500
    prompt_words: int = 12000
    min_updates: int = 0
    review: bool = True
    stop_rating: int | None = None
    patience: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.use_case.strip():
            raise ValueError("`use_case` is empty: say what the labels are for.")
        least = {"max_labels": 2, "sample_size": 2, "batch_size": 1, "summary_words": 0, "document_words": 1}
        least |= {"prompt_words": 1, "min_updates": 0, "patience": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"`{name}` must be at least {low}, got {getattr(self, name)}.")


class TaxonomyInducer:
    """Summaries of a sample, a first table from one batch, an update per further batch, a review.

        taxonomy = TaxonomyInducer(lm, args=TaxonomyArguments("condition a drug is taken for")).fit(dataset["text"])

    With a `cache_dir` in the models a second run asks only what the first one has not answered.

    Args:
        lm ([`BlackBoxLM`]): Writes the tables; must be able to write (`generate`).
        lm_fast ([`BlackBoxLM`], *optional*): Writes the summaries; `lm` by default.
        args ([`TaxonomyArguments`]): Settings.
    """

    def __init__(self, lm: BlackBoxLM, lm_fast: BlackBoxLM | None = None, *, args: TaxonomyArguments) -> None:
        self.lm, self.lm_fast, self.args = lm, lm_fast or lm, args
        self.history: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}

    @property
    def _limits(self) -> tuple[int, int, int]:
        return self.args.max_labels, self.args.name_words, self.args.description_words

    def fit(self, texts: Sequence[str]) -> Taxonomy:
        """Make a taxonomy.

        Args:
            texts (sequence of `str`): The corpus. Empty texts and repeats are left out.

        Returns:
            [`Taxonomy`]: With its history. `complete=False` if a budget ended before the last step.

        Raises:
            ValueError: If fewer than 2 different texts are left.
            TaxonomyError: If no answer was a usable table; carries the history.
            BudgetExceeded: If the budget ended before there was a first table.
        """
        args = self.args
        self.history, self.counts = [], {"summaries": 0, "summaries_failed": 0, "repairs": 0}
        corpus = list(dict.fromkeys(text for text in texts if isinstance(text, str) and text.strip()))
        if len(corpus) < 2:
            raise ValueError(
                f"The corpus has {len(corpus)} different texts that are not empty; at least 2 are needed."
            )
        rng = np.random.default_rng(args.seed)
        rows = np.sort(rng.choice(len(corpus), size=min(args.sample_size, len(corpus)), replace=False))
        summaries = self._summaries([corpus[row] for row in rows])
        batches = minibatches(len(summaries), self._fitting(summaries), args.seed)
        if len(batches) == 1:
            batches = batches * (1 + args.min_updates)
        table: Taxonomy | None = None
        same, complete = 0, True
        bar = tqdm(batches, desc="taxonomy", disable=not getattr(self.lm, "progress", True))
        try:
            for batch in bar:
                documents = [summaries[row] for row in batch]
                before = table
                table = self._step("generate" if table is None else "update", table, documents)
                last = self.history[-1]
                kept = before is not None and last["accepted"] and table is not None and table.labels == before.labels
                same = same + 1 if kept else 0
                if (
                    args.stop_rating is not None
                    and (last["rating"] or 0) >= args.stop_rating
                    and same >= args.patience
                ):
                    break
            if args.review and table is not None:
                some = rng.choice(len(summaries), size=min(len(batches[0]), len(summaries)), replace=False)
                table = self._step("review", table, [summaries[row] for row in some])
        except BudgetExceeded as error:
            if table is None:
                raise
            logger.warning("%s The taxonomy is that of the last step.", error)
            complete = False
        finally:
            bar.close()
        if table is None:
            wrong = self.history[-1]["problems"]
            raise TaxonomyError(f"No step gave a usable table; the last one: {'; '.join(wrong)}.", self.history)
        config = {**asdict(args), "prompts": prompts.VERSION, "lm": self.lm.model_id, "lm_fast": self.lm_fast.model_id}
        return Taxonomy(table.labels, args.use_case, tuple(self.history), config | self.counts, complete)

    def _summaries(self, documents: list[str]) -> list[str]:
        args = self.args
        cut = [" ".join(text.split()[: args.document_words]) for text in documents]
        if not args.summary_words:
            return cut
        parts, owner = [], []
        for row, text in enumerate(documents):
            words = text.split()
            for start in range(0, len(words), args.document_words):
                parts.append(" ".join(words[start : start + args.document_words]))
                owner.append(row)
        found = self._texts([prompts.summarize(args.use_case, part, args.summary_words) for part in parts])
        joined = ["" for _ in documents]
        for row, text in zip(owner, found, strict=True):
            joined[row] = f"{joined[row]} {text}".strip()
        long = [row for row in range(len(documents)) if owner.count(row) > 1 and joined[row]]
        again = self._texts([prompts.summarize(args.use_case, joined[row], args.summary_words) for row in long])
        for row, text in zip(long, again, strict=True):
            joined[row] = text or joined[row]
        failed = [row for row, text in enumerate(joined) if not text]
        self.counts |= {"summaries": len(documents), "summaries_failed": len(failed)}
        if failed:
            logger.warning(
                "%d of %d documents have no summary; their first words are used.", len(failed), len(documents)
            )
        short = " ".join
        return [text or short(cut[row].split()[: 2 * args.summary_words]) for row, text in enumerate(joined)]

    def _texts(self, requests: list[Request]) -> list[str]:
        """First texts; a budget that ends leaves the rest empty."""
        if not requests:
            return []
        try:
            answers = self.lm_fast.generate(requests)
        except BudgetExceeded as error:
            logger.warning("%s Documents without a summary are cut.", error)
            answers = error.partial
        return ["" if one is None or one.error else one.text.strip() for one in answers]

    def _fitting(self, summaries: list[str]) -> int:
        """The batch size that fits into a request."""
        args = self.args
        lengths = np.sort([len(text.split()) + 2 for text in summaries])[::-1]
        room = args.prompt_words - 200 - args.max_labels * (args.name_words + args.description_words)
        fits = int(np.searchsorted(np.cumsum(lengths), max(room, 0), side="right"))
        if fits >= min(args.batch_size, len(summaries)):
            return args.batch_size
        size = max(fits, 1)
        logger.warning("A batch of %d documents is too long for a request; %d are taken.", args.batch_size, size)
        return size

    def _step(self, kind: str, table: Taxonomy | None, documents: list[str]) -> Taxonomy | None:
        """One request, with one repair; gives the new table, or the old one (if any) if the answer cannot be used."""
        args = self.args
        words = (args.explanation_words, args.edit_words)
        if table is None:
            request, schema = prompts.generate(args.use_case, documents, self._limits), prompts.GENERATE
        else:
            request = prompts.update(args.use_case, table, documents, self._limits, words)
            schema = prompts.UPDATE
        answer = self.lm.generate_json([request], schema)[0]
        labels, problems, warnings = self._read(answer)
        if problems and answer.raw:
            self.counts["repairs"] += 1
            second = self.lm.generate_json([prompts.repair(request, answer.raw, problems)], schema)[0]
            repaired = self._read(second)
            if not repaired[1]:
                answer, (labels, problems, warnings) = second, repaired
        value = answer.value or {}
        self.history.append(
            {
                "step": len(self.history),
                "kind": kind,
                "rating": value.get("rating"),
                "explanation": value.get("explanation"),
                "edits": value.get("edits"),
                "table": [asdict(label) for label in labels],
                "accepted": not problems,
                "problems": problems,
                "warnings": warnings,
            }
        )
        if problems:
            logger.warning("Step %d (%s) is rejected: %s.", len(self.history) - 1, kind, "; ".join(problems))
            return table
        return Taxonomy(tuple(labels), args.use_case)

    def _read(self, answer: Any) -> tuple[list[TaxonomyLabel], list[str], list[str]]:
        if answer.value is None:
            return [], [f"there is no table: {answer.error}"], []
        return check_table(prompts.table_of(answer.value), *self._limits)
