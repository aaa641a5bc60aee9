"""Every way to hold a table loads; everything else says what is wrong and what to do."""

import gzip
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_labels.data.load import load_data, pick_split

ROWS = [{"text": "a b", "label": "x"}, {"text": "c, d", "label": "y"}]
CSV = 'text,label\na b,x\n"c, d",y\n'


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_files(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    (tmp_path / "a.tsv").write_text("text\tlabel\na b\tx\nc, d\ty\n")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    Dataset.from_list(ROWS).to_parquet(tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(CSV)
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"):
        data = load_data(tmp_path / name)
        assert list(data) == ["train"] and data["train"].to_list() == ROWS, name
        assert load_data(str(tmp_path / name), split="train").num_rows == 2


def test_bom_and_upper_case_suffix(tmp_path):
    (tmp_path / "A.CSV").write_text("\ufeff" + CSV, encoding="utf-8")
    assert load_data(tmp_path / "A.CSV")["train"].column_names == ["text", "label"]


def test_only_an_empty_cell_is_missing(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,NA\ny,None\nz,\nw,null\n")
    assert load_data(tmp_path / "a.csv")["train"]["label"][:] == ["NA", "None", None, "null"]


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    assert load_data(path)["train"].num_rows == 2
    path.write_text(CSV + "e,z\n")
    assert load_data(path)["train"].num_rows == 3


def test_folders(tmp_path):
    table = Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    DatasetDict(train=table, test=table).save_to_disk(tmp_path / "two")
    assert list(load_data(tmp_path / "one")) == ["train"] and list(load_data(tmp_path / "two")) == ["train", "test"]
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "train.csv").write_text("text,label\nx,NA\n")
    (tmp_path / "three" / "test.csv").write_text("text,label\ny,b\n")
    data = load_data(tmp_path / "three")
    assert data["train"]["label"][:] == ["NA"] and data["test"]["label"][:] == ["b"]
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert load_data(tmp_path / "four", split="train").to_list() == ROWS[:1]


def test_features_survive_save_to_disk(tmp_path):
    features = Features({"text": Value("string"), "labels": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a"], "labels": [-1]}, features=features).save_to_disk(tmp_path / "x")
    assert load_data(tmp_path / "x")["train"].features == features


def test_folder_of_images(tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "0.png")
    data = load_data(tmp_path)["train"]
    assert data.features["label"].names == ["cat", "dog"] and data.num_rows == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"is empty \(0 bytes\)"),
        ("a.csv", b"text,label\n", "has 0 rows. Check that it holds more than a header"),
        ("a.csv", b"a,b\n1,2\n1,2,3,4\n", "Cannot read .* as csv: .*(Expected 2 fields|tokenizing)"),
        ("a.csv", b"a,b\n\xff\xfe\x80,1\n", "Cannot read .* as csv: it is not UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "Cannot read .* as jsonl"),
        ("a.json", b"3", "Cannot read .* as json|0 rows"),
        ("a.parquet", b"no parquet", "Cannot read .* as parquet: .*[Pp]arquet"),
        ("a.xlsx", b"x", "its type must be one of .csv, .tsv, .json"),
        ("noending", b"x", "its type must be one of"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_data(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


def test_unreadable_folders(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        load_data(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="folder of a model, not of a data set. Did you swap"):
        load_data(tmp_path)
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "notes.doc").write_text("x")
    with pytest.raises(ValueError, match="cannot be read as a data set: .*train.csv and test.csv"):
        load_data(odd)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "dataset_dict.json").write_text("{")
    with pytest.raises(ValueError, match="The saved data set .*broken' cannot be read"):
        load_data(broken)


def test_nothing_there(tmp_path):
    (tmp_path / "train.csv").write_text(CSV)
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder .*trian.csv'. Did you mean .*train.csv'"):
        load_data(tmp_path / "trian.csv")
    with pytest.raises(FileNotFoundError, match="The folder .*none' does not exist either"):
        load_data(tmp_path / "none" / "a.csv")
    with pytest.raises(ValueError, match="empty text"):
        load_data(" ")


def test_hub_offline_says_so():
    with pytest.raises(ConnectionError, match="no file or folder here, and the Hub cannot be reached. HF_HUB_OFFLINE"):
        load_data("nobody/nothing")


def test_splits(tmp_path):
    data = DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS))
    assert pick_split(data, "test").num_rows == 2
    with pytest.raises(ValueError, match="has no split 'tests'; it has: train, test. Did you mean 'test'"):
        pick_split(data, "tests", "x")
    data.save_to_disk(tmp_path / "d")
    with pytest.raises(ValueError, match="has no split 'validation'"):
        load_data(tmp_path / "d", split="validation")
