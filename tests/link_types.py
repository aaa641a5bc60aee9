"""Write `.types/hf_labels/`: links to every part of the package where a type checker expects to find it."""

from pathlib import Path

root = Path(__file__).resolve().parents[1]
tree = root / ".types" / "hf_labels"
tree.mkdir(parents=True, exist_ok=True)
wanted = {path.name: path for path in (root / "hf_labels").iterdir() if path.name != "__pycache__"}
wanted |= {name: root / name for name in ("trainers", "hub_cards")}
for old in tree.iterdir():
    if old.name not in wanted or old.resolve() != wanted[old.name]:
        old.unlink()
for name, target in wanted.items():
    if not (tree / name).exists():
        (tree / name).symlink_to(target)
