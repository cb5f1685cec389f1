"""The paper's findings as tests: `pytest cases/` in a clone, `pytest --pyargs harness.cases` with the package."""
