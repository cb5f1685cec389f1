"""Usage errors for collected pairs that cannot be measured, raised before any measurement."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from harness.data.datasets import find_dataset
from harness.errors import PhaseError
from harness.interface import in_current_words, option_text
from harness.measurement.reading_cache import cache_problem
from harness.plugin.fixtures import SESSION, pair_of
from harness.profile.pair import Pair
from harness.run.option_row import FIXTURE, is_from_fixture
from harness.run.options import Options
from harness.run.session import PhaseSession


def refuse_impossible(session: pytest.Session) -> None:
    """Check that the requested pairs can be measured; reads no weights, and one image of each dataset.

    Unavailable pairs that the user did not name are recorded and skipped later.

    Raises:
        pytest.UsageError: Python strips docstrings; a fixture or the device is missing; a data directory does not
            exist, has an unknown layout or no usable sample; a named model or dataset is unavailable; its
            configuration, processor or a required package is missing; cache or outputs are not writable.
    """
    state = session.config.stash[SESSION]
    for name in state.options.model_fixtures():
        _refuse_fixture(session, name)
    if sys.flags.optimize > 1:
        raise pytest.UsageError(
            "Python strips docstrings here (-OO or PYTHONOPTIMIZE=2), and transformers cannot be imported without "
            "them: run with -O or without it"
        )
    # Libraries may also warn during their import.
    with state.results.warnings.recording():
        from harness.models.vlm import choose_device

        try:
            choose_device(state.options.device)
        except PhaseError as error:
            raise pytest.UsageError(in_current_words(str(error))) from None
        pairs = state.results.collected
        others = dict.fromkeys(filter(None, map(state.options.reference_pair, pairs)))
        on_command_line = [name for name, _ in session.config.getoption("--phase-data") or ()]
        _refuse_pairs(state, (*pairs, *others), on_command_line)
        _refuse_directories(state.options)
        for pair in pairs:
            state.measured.missing(pair)


def _refuse_fixture(session: pytest.Session, name: str) -> None:
    """Refuse `fixture:NAME` if the tests cannot request the fixture, or if its scope is not the session."""
    item = next(item for item in session.items if pair_of(item))
    # pytest has no public function that looks up a fixture without setting it up, which would load a model.
    fixtures = session._fixturemanager.getfixturedefs(name, item)
    if not fixtures:
        raise pytest.UsageError(
            f"{FIXTURE}{name}: {item.location[0]} has no fixture {name!r}; define it in a conftest.py above the "
            "tests, or in a plugin named with -p, with scope='session'"
        )
    if fixtures[-1].scope != "session":
        raise pytest.UsageError(
            f"{FIXTURE}{name}: the fixture has scope {fixtures[-1].scope!r} and would load its model repeatedly; "
            "declare it with @pytest.fixture(scope='session')"
        )


def _refuse_pairs(session: PhaseSession, pairs: Sequence[Pair], on_command_line: Sequence[str]) -> None:
    options = session.options
    datasets = {pair.dataset for pair in pairs}
    for name in dict.fromkeys((*on_command_line, *options.datasets)):
        if name in datasets:
            _refuse_data(options, name)
            datasets.remove(name)
    for pair in pairs:
        missing, requested = options.unavailable(pair)
        if requested:
            raise _unmeasurable(pair, missing)
        if not missing and pair.dataset in datasets:
            _refuse_data(options, pair.dataset)
            datasets.remove(pair.dataset)
    models = {pair.model for pair in pairs}
    for entry in options.named_models():
        if entry.name in models and not is_from_fixture(entry):
            try:
                session.loaded.refuse_unloadable(entry.name)
            except PhaseError as error:
                raise _unmeasurable(entry.name, error) from None


def _refuse_data(options: Options, name: str) -> None:
    """Refuse a dataset whose directory, if one was set, contains no usable sample."""
    dataset, source = find_dataset(name), options.source(name)
    if source.directory is None:
        return
    reason = dataset.unavailable(source)
    try:
        if not reason:
            dataset.draw(1, options.seed, source)
    except PhaseError as error:
        reason = str(error)
    if reason:
        raise _unmeasurable(name, reason)


def _unmeasurable(name: object, reason: object) -> pytest.UsageError:
    return pytest.UsageError(in_current_words(f"{name} was requested and cannot be measured here: {reason}"))


def _refuse_directories(options: Options) -> None:
    # Imported late, because pytest warns about a plugin module that is imported before it is registered.
    from harness.plugin.outputs import unwritable_output

    if problem := cache_problem(options.cache):
        raise pytest.UsageError(
            f"{option_text('cache')}: {options.cache} is not writable ({problem}); choose another with "
            f"{option_text('cache')}"
        )
    if problem := unwritable_output(options):
        raise pytest.UsageError(in_current_words(problem))
