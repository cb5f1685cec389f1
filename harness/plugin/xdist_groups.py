"""How pytest-xdist shares out the cases: all of one model go to one worker, so that each model is loaded once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from harness.profile.pair import Pair


class LoadModelScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Sends the cases of a model to one worker, and all other tests as `--dist` says: by file, by scope, or singly."""

    def __init__(self, config: pytest.Config, log: Any, pairs: Iterable[Pair]) -> None:
        """Take the pairs of the run, whose names are in the ids of their cases."""
        super().__init__(config, log)
        self._pairs = tuple(pairs)

    def _split_scope(self, nodeid: str) -> str:
        model = model_of(nodeid, self._pairs)
        if model:
            return model
        by = self.config.getoption("dist")
        if by == "loadfile":
            return nodeid.split("::", 1)[0]
        return nodeid.rsplit("::", 1)[0] if by == "loadscope" else nodeid


def model_of(nodeid: str, pairs: Iterable[Pair]) -> str:
    """The model whose pair a test is about, by the id of the test; empty where it is about none.

    Other parameters may stand before and behind the pair. Of pairs whose names hold each other the longest is meant.
    In an id pytest spells out what is not ASCII.
    """
    _, bracket, given = nodeid.partition("[")
    if not bracket:
        return ""
    given = given.removesuffix("]")
    names = {pair: str(pair).encode("unicode_escape").decode("ascii") for pair in pairs}
    named = [pair for pair, name in names.items() if re.search(rf"(?:^|-){re.escape(name)}(?:-|$)", given)]
    return max(named, key=lambda pair: len(str(pair))).model if named else ""
