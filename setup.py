"""Maps `cases/` and `baselines/` of the repository to packages of the wheel; all else is in pyproject.toml."""

from setuptools import find_packages, setup

# The table of packages in pyproject.toml cannot add packages from other directories to those that it finds.
OUTSIDE = {"harness.cases": "cases", "harness.bundled_baselines": "baselines"}

setup(
    packages=[*find_packages(include=["harness", "harness.*"], exclude=["harness.tests", "harness.tests.*"]), *OUTSIDE],
    package_dir=OUTSIDE,
)
