"""CITATION.cff follows the Citation File Format 1.2.0 and names this version and the paper."""

from __future__ import annotations

import json
import tomllib

import yaml  # a dependency of huggingface-hub, which transformers requires

from harness.judgement.paper import CLAIMS_FILE
from harness.tests.support.case_runs import ROOT

REQUIRED = {"authors", "cff-version", "message", "title"}
OPTIONAL = {
    *("abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url"),
    *("preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url"),
    "version",
}
ENTITY = {"name", "address", "alias", "city", "country", "date-end", "date-start", "email", "location", "website"}
PERSON = {"affiliation", "alias", "email", "family-names", "given-names", "name-particle", "name-suffix", "orcid"}
# The keys of a reference that this file may use; the format has more.
REFERENCE = {"authors", "doi", "identifiers", "journal", "title", "type", "url", "year"}
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_keys_are_those_of_the_format() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert REQUIRED <= CITATION.keys() <= REQUIRED | OPTIONAL
    assert CITATION["type"] == "software"
    assert all(author.keys() <= ENTITY and author["name"] for author in CITATION["authors"])
    for reference in CITATION["references"]:
        assert {"authors", "title", "type"} <= reference.keys() <= REFERENCE
        assert all({"family-names", "given-names"} <= author.keys() <= PERSON for author in reference["authors"])
        assert all(
            {"type", "value"} <= entry.keys() <= {"type", "value", "description"} for entry in reference["identifiers"]
        )


def test_it_names_this_version_and_the_paper() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # YAML reads some versions as numbers.
    assert isinstance(CITATION["version"], str)
    assert (CITATION["version"], CITATION["license"]) == (project["version"], project["license"])
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in project["authors"]]
    assert " ".join(CITATION["abstract"].split()) == project["description"]
    assert CITATION["keywords"] == project["keywords"]
    paper = json.loads(CLAIMS_FILE.read_text(encoding="utf-8"))["paper"]
    (reference,) = CITATION["references"]
    assert (reference["title"], reference["year"]) == (paper["title"], paper["year"])
    assert [f"{author['given-names']} {author['family-names']}" for author in reference["authors"]] == paper["authors"]
    assert reference["url"] == project["urls"]["Paper"] == f"https://arxiv.org/abs/{paper['arxiv']}"
