"""Imports without collections and without optional packages; nothing of it stays."""

import gc
import importlib
import sys

import pytest

from projects.clip_vg_core.utils.quick_imports import (
    collection_paused,
    without_packages,
)


def test_garbage_is_collected_again_also_after_an_error():
    with pytest.raises(ZeroDivisionError), collection_paused():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_collection_that_was_off_stays_off():
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / 'optional_package.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    yield 'optional_package'
    sys.modules.pop('optional_package', None)


def test_a_package_is_missing_meanwhile_and_there_afterwards(package):
    with without_packages(package):
        assert importlib.util.find_spec(package) is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(package)
    assert importlib.import_module(package)


def test_a_package_that_is_loaded_stays(package):
    loaded = importlib.import_module(package)
    with without_packages(package):
        assert importlib.import_module(package) is loaded
    assert sys.modules[package] is loaded
