"""Errors of the command line, and names that resemble a misspelt one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn

PROGRAM = "vlm-phase"


class UsageProblem(Exception):  # noqa: N818 - the command line is wrong, not the program
    """A command line that cannot be run; the message is one sentence."""


class CommandParser(argparse.ArgumentParser):
    """A parser that raises `UsageProblem`, so that misuse has pytest's exit code and not argparse's."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageProblem` with the message."""
        raise UsageProblem(message)


def similar_name(name: str, names: Iterable[str]) -> str:
    """Return the name that resembles a misspelt one most, or "" if none does."""
    return next(iter(get_close_matches(name, list(names), n=1, cutoff=0.7)), "")
