"""Receipts drawn with Pillow, whose fields are known: several layouts, languages and kinds of wear."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels.tail_vrd import DocumentSchema

RECEIPT_FIELDS: dict[str, Any] = {
    "vendor": {"description": "who was paid, not the payment processor"},
    "date": {"type": "date", "keywords": ["date", "datum"]},
    "total": {"type": "amount", "keywords": ["total", "summe"]},
    "currency": {"type": "currency"},
    "items": {"type": "list", "fields": {"name": {}, "price": {"type": "amount"}}},
}
_LANGUAGES: dict[str, dict[str, Any]] = {
    "en": {
        "words": ("RECEIPT", "Date", "TOTAL", "Thank you!"),
        "money": ("USD", "$", "."),
        "vendors": "Blue Door Cafe|Harbor Taxi|Oak Street Books|Miller & Sons|City Parking|Sunrise Bakery",
        "goods": "Coffee|Bagel|Notebook|Taxi fare|Parking|Sandwich|Tea|Batteries",
    },
    "de": {
        "words": ("QUITTUNG", "Datum", "SUMME", "Vielen Dank!"),
        "money": ("EUR", "€", ","),
        "vendors": "Bäckerei Vogt|Taxi Schäfer|Buchladen am Markt|Gasthof Löwen|Parkhaus Mitte|Drogerie Weiß",
        "goods": "Kaffee|Brötchen|Notizbuch|Taxifahrt|Parken|Käsekuchen|Tee|Batterien",
    },
    "fr": {
        "words": ("TICKET", "Date", "TOTAL TTC", "Merci !"),
        "money": ("EUR", "€", ","),
        "vendors": "Café du Port|Taxi Moreau|Librairie Girard|Chez Élodie|Parking Opéra|Boulangerie Petit",
        "goods": "Café|Croissant|Carnet|Course|Stationnement|Crêpe|Thé|Piles",
    },
}
_MONTHS = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
}
LAYOUTS = ("centred", "left", "date last")
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")


def receipt_schema(items: bool = True) -> DocumentSchema:
    """Fields of the receipts: vendor, date, total, currency and, unless left out, the list of items."""
    return DocumentSchema.from_dict({k: v for k, v in RECEIPT_FIELDS.items() if items or k != "items"})


def draw_receipts(
    count: int,
    seed: int = 0,
    *,
    languages: Sequence[str] = ("en", "de", "fr"),
    size: tuple[int, int] = (280, 360),
    items: tuple[int, int] = (1, 4),
    font_size: int = 15,
    noise: float = 0.5,
    layouts: Sequence[str] = LAYOUTS,
    fonts: Sequence[str] = FONTS,
    jitter: bool = True,
) -> Any:
    """Receipts and their truth.

    Args:
        count (`int`): N.
        seed (`int`, *optional*): The first rows of a longer draw are those of a shorter one.
        languages (sequence of `str`, *optional*): Of `"en"`, `"de"`, `"fr"`.
        size (`tuple[int, int]`, *optional*): Width and height in pixels.
        items (`tuple[int, int]`, *optional*): Fewest and most goods; `(0, 0)` draws the total alone.
        font_size (`int`, *optional*): In pixels; smaller where the text would not fit.
        noise (`float`, *optional*, defaults to 0.5): Wear from 0 (clean) to 1: rotation up to 2 degrees, grey paper,
            blur, specks.
        layouts (sequence of `str`, *optional*): Of `"centred"`, `"left"`, `"date last"`.
        fonts (sequence of `str`, *optional*): Names of fonts that come with matplotlib.
        jitter (`bool`, *optional*, defaults to `True`): The text begins anywhere; else at the top.

    Returns:
        `datasets.Dataset`: `image`, `truth` (JSON in the kept form), `words`, `boxes` (left, top, right, bottom in
        0..1000, before the rotation), `text`, `language`, `layout`, `index`.

    Raises:
        ValueError: For no receipt, an unknown language, or a number out of range.
    """
    from datasets import Dataset, Features, Image, List, Value

    unknown = sorted(set(languages) - set(_LANGUAGES))
    if unknown or not languages:
        raise ValueError(f"`languages` must be among {', '.join(_LANGUAGES)}, got {list(languages)}.")
    if not layouts or set(layouts) - set(LAYOUTS):
        raise ValueError(f"`layouts` must be among {', '.join(LAYOUTS)}, got {list(layouts)}.")
    if count < 1 or not 0 <= noise <= 1 or not 0 <= items[0] <= items[1]:
        raise ValueError(f"Need a count, a noise in [0, 1] and rising items, got {count}, {noise} and {items}.")
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "truth", "words", "boxes", "text")}
    rows |= {"language": [], "layout": [], "index": list(range(count))}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        language = str(rng.choice(list(languages)))
        truth, lines, layout = _content(rng, language, items, layouts)
        image, words, boxes = _draw(rng, lines, layout, size, font_size, noise, fonts, jitter)
        values: list[Any] = [image, json.dumps(truth, ensure_ascii=False, separators=(",", ":")), words, boxes]
        for name, value in zip(rows, [*values, " ".join(words), language, layout], strict=False):
            rows[name].append(value)
    features = {name: Value("string") for name in ("truth", "text", "language", "layout")}
    kinds = {"image": Image(), "words": List(Value("string")), "boxes": List(List(Value("int64")))}
    order = {name: (features | kinds | {"index": Value("int64")})[name] for name in rows}
    return Dataset.from_dict(rows, features=Features(order))


def _content(
    rng: Any, language: str, items: tuple[int, int], layouts: Sequence[str]
) -> tuple[dict[str, Any], list[tuple[str, ...]], str]:
    """Truth, lines (one part, or left and right) and layout."""
    own = _LANGUAGES[language]
    title, date_word, total_word, thanks = own["words"]
    code, sign, mark = own["money"]
    vendor = str(rng.choice(own["vendors"].split("|")))
    year, month, day = 2020 + int(rng.integers(6)), 1 + int(rng.integers(12)), 1 + int(rng.integers(28))
    goods = rng.permutation(own["goods"].split("|"))[: rng.integers(items[0], items[1] + 1)].tolist()
    cents = [int(rng.integers(80, 4000)) for _ in goods]
    total = sum(cents) if goods else int(rng.integers(100, 9900))

    def shown(value: int) -> str:
        return f"{value // 100}{mark}{value % 100:02d}"

    name = _MONTHS[language].split()[month - 1]
    dates = {
        "en": [f"{year}-{month:02d}-{day:02d}", f"{day} {name} {year}"],
        "de": [f"{day:02d}.{month:02d}.{year}", f"{day}. {name} {year}"],
        "fr": [f"{day} {name} {year}", f"{day:02d}.{month:02d}.{year}"],
    }[language]
    with_sign = shown(total) + " " + str(rng.choice([sign, code]))
    when = (f"{date_word}: {dates[int(rng.integers(2))]}",)
    bill = [(good, shown(price)) for good, price in zip(goods, cents, strict=True)]
    layout = str(rng.choice(list(layouts)))
    lines: list[tuple[str, ...]] = [(vendor,), (title,)] if layout == "centred" else [(title,), (vendor,)]
    bill.append((total_word, with_sign))
    lines += [*bill, when] if layout == "date last" else [when, *bill]
    if goods:
        lines.append((thanks,))
    truth: dict[str, Any] = {"vendor": vendor, "date": f"{year}-{month:02d}-{day:02d}"}
    truth |= {"total": f"{total // 100}.{total % 100:02d}", "currency": code}
    if items[1]:
        pairs = zip(goods, cents, strict=True)
        truth["items"] = [{"name": good, "price": f"{price // 100}.{price % 100:02d}"} for good, price in pairs]
    return truth, lines, layout


@functools.cache
def _font(name: str, size: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


def _fits(lines: list[tuple[str, ...]], font: Any, size: tuple[int, int]) -> bool:
    widest = max(font.getlength("  ".join(parts)) for parts in lines)
    return widest <= 0.9 * size[0] and (font.size + 2) * len(lines) + 4 <= size[1]


def _draw(
    rng: Any,
    lines: list[tuple[str, ...]],
    layout: str,
    size: tuple[int, int],
    font_size: int,
    noise: float,
    fonts: Sequence[str],
    jitter: bool,
) -> tuple[Any, list[str], list[list[int]]]:
    from PIL import Image, ImageDraw, ImageFilter

    width, height = size
    paper = int(255 - noise * rng.integers(0, 50))
    image = Image.new("L", size, paper)
    pen, face = ImageDraw.Draw(image), str(rng.choice(list(fonts)))
    while font_size > 5 and not _fits(lines, _font(face, font_size), size):
        font_size -= 1
    font = _font(face, font_size)
    step, margin = font_size + max(2, int(rng.integers(2, 7) * font_size / 15)), max(2, width // 20)
    top = int(rng.integers(2, max(3, height - step * len(lines) - 2))) if height > step * len(lines) + 4 else 2
    top = top if jitter else 2
    words: list[str] = []
    boxes: list[list[int]] = []

    def put(text: str, left: float, top: float) -> None:
        pen.text((left, top), text, fill=int(rng.integers(0, 40 + int(40 * noise))), font=font)
        for word in text.split():
            end = left + font.getlength(word)
            box = [1000 * left / width, 1000 * top / height, 1000 * end / width, 1000 * (top + font_size) / height]
            words.append(word)
            boxes.append([int(min(max(value, 0), 1000)) for value in box])
            left = end + font.getlength(" ")

    for parts in lines:
        left = (width - font.getlength(parts[0])) / 2 if layout == "centred" and len(parts) == 1 else margin
        put(parts[0], max(margin, left), top)
        if len(parts) > 1:
            put(parts[1], width - margin - font.getlength(parts[1]), top)
        top += step
    if noise:
        image = image.rotate(float(rng.uniform(-2, 2) * noise), fillcolor=paper, resample=Image.Resampling.BILINEAR)
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.8) * noise)))
        pixels = np.asarray(image, dtype=np.float32) + rng.normal(0, 18 * noise, (height, width))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.convert("RGB"), words, boxes
