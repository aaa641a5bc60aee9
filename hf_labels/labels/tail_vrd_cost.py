"""What labelling by a teacher and serving a student cost, and from how many documents on it pays."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CostModel:
    """Costs in US dollars.

    Parameters:
        teacher_per_document (`float`): One answer of the teacher.
        labelled (`int`): Documents that it labelled.
        samples (`int`, *optional*, defaults to 1): r, answers per labelled document.
        training (`float`, *optional*, defaults to 0.0): Of the student.
        student_per_document (`float`, *optional*, defaults to 0.0): One answer of the student.
        teacher_seconds, student_seconds (`float`, *optional*): Per document, for the speed.

    Raises:
        ValueError: For a negative or infinite number.
    """

    teacher_per_document: float
    labelled: int
    samples: int = 1
    training: float = 0.0
    student_per_document: float = 0.0
    teacher_seconds: float | None = None
    student_seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be a number of at least 0, got {value}.")

    @classmethod
    def of_hardware(cls, price_per_hour: float, training_seconds: float, student_seconds: float, **others: Any) -> Any:
        """With a student on a machine that costs `price_per_hour`."""
        return cls(
            training=training_seconds / 3600 * price_per_hour,
            student_per_document=student_seconds / 3600 * price_per_hour,
            student_seconds=student_seconds,
            **others,
        )

    @property
    def labels(self) -> float:
        """What the labels cost."""
        return self.teacher_per_document * self.labelled * self.samples

    @property
    def break_even(self) -> float:
        """n*: documents from which label and training costs are earned back; infinite if a student is not cheaper.

        `n* = (labels + training) / (teacher per document - student per document)`
        """
        gain = self.teacher_per_document - self.student_per_document
        fixed = self.labels + self.training
        return fixed / gain if gain > 0 else 0.0 if fixed == 0 and gain == 0 else math.inf

    def total(self, documents: int) -> float:
        """Labels, training and the student on so many documents."""
        return self.labels + self.training + self.student_per_document * documents

    def saving(self, documents: int) -> float:
        """Share of the teacher's cost on so many documents that is saved; negative before the break-even."""
        whole = self.teacher_per_document * documents
        return 1 - self.total(documents) / whole if whole else 0.0

    def table(self) -> dict[str, float | int | str]:
        """Rows for a card."""
        rows: dict[str, float | int | str] = {
            "documents labelled": self.labelled,
            "answers per document": self.samples,
            "labels, USD": round(self.labels, 6),
            "training, USD": round(self.training, 6),
            "teacher, USD per 1000 documents": round(1000 * self.teacher_per_document, 6),
            "student, USD per 1000 documents": round(1000 * self.student_per_document, 6),
            "break-even, documents": math.ceil(round(self.break_even, 6)) if self.break_even < math.inf else "never",
        }
        if self.student_seconds is not None:
            rows["student, seconds per document"] = round(self.student_seconds, 6)
        if self.teacher_seconds and self.student_seconds:
            rows["times as fast as the teacher"] = round(self.teacher_seconds / self.student_seconds, 3)
        return rows
