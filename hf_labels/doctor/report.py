"""What the doctor says: findings, as text for a terminal, as JSON and as one HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_labels.doctor.treatments import Treatment, treatments_for

LEVELS = ("problem", "warning", "good", "note")
_MARKS = {"problem": "!!", "warning": " !", "good": "ok", "note": "  "}


@dataclass(frozen=True)
class Finding:
    """One thing that was measured.

    Parameters:
        problem (`str`): What it is about, key of `treatments.TREATMENTS`; `""` if nothing treats it.
        level (`str`): `"problem"`, `"warning"`, `"good"` or `"note"`.
        title (`str`): One line with the number.
        value, low, high (`float`, *optional*): The number and its confidence interval.
        details (`tuple[str, ...]`): Sentences below the title.
        header, rows (`tuple`): A table for the page.
        pictures (`tuple`): Functions from a folder to a [`~hf_labels.hub_cards.CardPlot`]; drawn for the page only.
        values (`dict`): More numbers, for the JSON.
    """

    problem: str
    level: str
    title: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    details: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    pictures: tuple[Callable[[Path], Any], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"`level` must be one of {', '.join(LEVELS)}, got {self.level!r}.")

    @property
    def is_ill(self) -> bool:
        return self.level in ("problem", "warning")


@dataclass(frozen=True)
class DoctorReport:
    """All findings about a data set.

    Parameters:
        dataset (`str`): What was examined.
        facts (`dict[str, Any]`): Rows, columns and kinds that were recognised.
        findings (`tuple[Finding, ...]`): The worst first.
        command (`dict[str, str]`): Columns and names that go into the commands of the treatments.
        seconds (`dict[str, float]`): Time of each part of the examination.
    """

    dataset: str
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    command: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def of(self, problem: str) -> tuple[Finding, ...]:
        """The findings about one problem."""
        return tuple(finding for finding in self.findings if finding.problem == problem)

    def treatments(self, finding: Finding) -> tuple[Treatment, ...]:
        """Methods of the catalog that treat what was found, the exact command with each."""
        if not finding.is_ill and finding.problem != "plural":  # sets of labels are no illness
            return ()
        flagged: dict[str, str] = {"flagged": str(finding.values["flagged"])} if "flagged" in finding.values else {}
        return treatments_for(finding.problem, self.dataset, {**self.command, **flagged})

    def text(self) -> str:
        """The short report."""
        lines = [f"{self.dataset}", *(f"  {name}: {_short(value)}" for name, value in self.facts.items()), ""]
        seen: set[str] = set()
        for finding in self.findings:
            lines.append(f"{_MARKS[finding.level]} {finding.title}")
            lines += [f"     {line}" for line in finding.details]
            for treatment in self.treatments(finding):
                lines.append(f"     -> {treatment.slug}: {treatment.why}")
                code = ["as above"] if treatment.command in seen else treatment.command.splitlines()
                lines += [f"        {line}" for line in code if treatment.ready]
                seen.add(treatment.command)
        ill = sum(finding.is_ill for finding in self.findings)
        spent = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        lines += ["", f"{ill} of {len(self.findings)} findings need attention. Time: {spent}."]
        return "\n".join(_line(line) for line in lines)

    def to_json(self, path: str | Path | None = None) -> str:
        """The findings as JSON text (RFC 8259: a number that is not finite is null); written to `path` if given.

        `dataset`; `facts` (what was recognised); `findings`, the worst first, each with `problem` (key of
        `treatments.TREATMENTS`, or ""), `level`, `title`, `value` and its `interval` [low, high] (null where there is
        no number), `details`, `values` (more numbers, such as row numbers from 0) and `treatments` (`method`, `ready`,
        `command`); `seconds` of each part. The same data, options and versions give the same text, `seconds` aside.
        """
        found = [
            {
                "problem": one.problem,
                "level": one.level,
                "title": one.title,
                "value": one.value,
                "interval": None if one.low is None else [one.low, one.high],
                "details": list(one.details),
                "values": dict(one.values),
                "treatments": [
                    {"method": t.slug, "ready": t.ready, "command": t.command} for t in self.treatments(one)
                ],
            }
            for one in self.findings
        ]
        content = {
            "dataset": self.dataset,
            "facts": dict(self.facts),
            "findings": found,
            "seconds": dict(self.seconds),
        }
        text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text
        if path is not None:
            from hf_labels.hub_cards.save import replace_file

            Path(path).parent.mkdir(parents=True, exist_ok=True)
            replace_file(Path(path), (text + "\n").encode("utf-8"))
        return text

    def to_html(self, path: str | Path) -> Path:
        """One page with tables and pictures: no script, nothing from outside, every text escaped.

        Raises:
            ValueError: If `path` does not end in .html.
        """
        import tempfile

        from hf_labels.hub_cards.html_page import Part, embed_image, write_page

        facts = Part(header=("what", "found"), rows=[(name, _short(value)) for name, value in self.facts.items()])
        parts = [facts]
        with tempfile.TemporaryDirectory() as folder:
            for number, one in enumerate(self.findings):
                treated = self.treatments(one)
                said = [*one.details, *(f"{t.slug}: {t.why}" for t in treated)]
                place = Path(folder) / str(number)
                place.mkdir()
                drawn = [draw(place) for draw in one.pictures]
                pictures = [embed_image(plot, plot.alt) for plot in drawn if plot is not None]
                heading = f"{one.level}: {one.title}" if one.is_ill else one.title
                code = [t.command for t in treated if t.ready]
                parts.append(Part(heading, said, code, one.header, one.rows, pictures))
            ill = sum(finding.is_ill for finding in self.findings)
            intro = [f"{ill} of {len(self.findings)} findings need attention."]
            return write_page(path, f"Labels of {self.dataset}", parts, intro)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_short(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(str(one) for one in value[:12])
        return shown + (f", ... ({len(value)} in all)" if len(value) > 12 else "")
    return str(value)


def _plain(value: Any) -> Any:
    """Only what JSON knows: arrays become lists, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _line(text: str) -> str:
    """Without characters that move the cursor, change colours or the direction of writing in a terminal."""
    return "".join(c if c.isprintable() else f"[U+{ord(c):04X}]" for c in text)
