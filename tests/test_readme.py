"""The README says what is true: its table, its commands, its code and its links."""

import re
from pathlib import Path

from hf_labels.hub_cards.table import methods_table, update

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_is_written_from_the_catalog():
    assert update(README) == README, "run `make readme`"
    assert methods_table() in README


def test_commands_are_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make ([\w-]+)", README, flags=re.MULTILINE)
    assert commands[:2] == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in commands)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert README.index("make test") < 1500, "the two commands belong on the first screen"


def test_code_compiles_and_names_are_public():
    import hf_labels

    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec")
        for names in re.findall(r"from hf_labels import (.+)", block):
            assert all(name.strip() in hf_labels.__all__ for name in names.split(","))


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert targets and not [target for target in targets if not (ROOT / target).exists()]
