"""The page: self-contained, escaped, and shown by a real browser."""

import html.parser
import re
import shutil
import subprocess

import numpy as np
import pytest
from datasets import Dataset

from hf_labels.doctor import examine

NASTY = '<script>document.title="stolen"</script><img src=x onerror="document.title=1">'
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = [f"{NASTY} {'good fine nice' if i % 2 else 'bad poor sad'} {rng.integers(10**6)}" for i in range(200)]
    labels = [(i + (i % 10 == 0)) % 2 for i in range(200)]
    rows += rows[:3]
    labels += [1 - k for k in labels[:3]]
    probs = [[0.9, 0.1] if k else [0.1, 0.9] for k in labels]
    data = Dataset.from_dict({"text": rows, "labels": labels, "probs": probs})
    path = tmp_path_factory.mktemp("page") / "report.html"
    report = examine(data, encoder="tfidf")
    assert report.to_html(path) == path
    return path, report


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.handlers = set(), [], []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_nothing_comes_from_outside_and_every_text_is_escaped(page):
    path, report = page
    content = path.read_text()
    found = Tags()
    found.feed(content)
    assert "script" not in found.tags and not found.handlers and "img" in found.tags
    assert all(address.startswith("data:image/") for address in found.addresses)
    assert "&lt;script&gt;" in content and "url(" not in content and "@import" not in content
    for finding in report.findings:
        assert re.sub(r"\W+", "", finding.title) in re.sub(r"\W+", "", html.unescape(content)), finding.title


def test_a_real_browser_shows_it(page):
    path, report = page
    browser = next((place for name in BROWSERS if (place := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium is installed (`apt-get install chromium-headless-shell`)")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title and "stolen" not in title.group(1) and "Labels of" in title.group(1)
    assert done.stdout.count("<h2") >= len(report.findings)
    picture = path.with_suffix(".png")
    subprocess.run(
        [*command[:-2], f"--screenshot={picture}", "--window-size=800,1200", path.as_uri()],
        check=True,
        timeout=120,
        capture_output=True,
    )
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (1200, 800) and pixels.std() > 10  # something is drawn
