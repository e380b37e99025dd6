"""The numbers in the documents are those of the result JSONs."""

import re

import pytest
from repository_files import ROOT, name_of, repository_files

from s3router.evaluation.results import read_result
from s3router.evaluation.tables import TABLES, fill, read_results

MARKED = [
    path
    for path in repository_files(".md")
    if re.search("^<!-- results:", path.read_text(encoding="utf-8"), re.M)
]


def test_every_table_stands_somewhere_and_the_main_ones_in_the_readme():
    texts = {path: path.read_text(encoding="utf-8") for path in MARKED}
    everywhere = "\n".join(texts.values())
    for name in TABLES:
        if read_results(name, ROOT):
            assert f"<!-- results:{name} -->" in everywhere
    for name in ("commonvoice", "encoder", "study", "quickstart"):
        assert f"<!-- results:{name} -->" in texts[ROOT / "README.md"]


@pytest.mark.parametrize("path", MARKED, ids=name_of)
def test_tables_equal_the_results(path):
    text = path.read_text(encoding="utf-8")
    assert fill(text, ROOT) == text, "run `make results`"


def test_make_results_fills_every_marked_file():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    filled = re.search(r"^TABLES = (.*)$", makefile, re.M)[1].split()
    assert {name_of(path) for path in MARKED} == set(filled)


@pytest.mark.parametrize("name", TABLES)
def test_every_result_is_in_a_table_and_complete(name):
    for result in read_results(name, ROOT):
        assert result["commit"], "a published result comes from a commit"
        assert result["versions"]["torch"]
        assert result["machine"]["cpu"]


def test_no_result_lies_where_no_table_looks():
    results = [
        path
        for path in repository_files(".json")
        if path.is_relative_to(ROOT / "recipes") and "results" in path.parts
    ]
    tabled = {
        path for table in TABLES.values() for path in ROOT.glob(table.pattern)
    }
    for path in set(results) - tabled:
        # Other results, as of pre-training, are results all the same.
        assert read_result(path)
