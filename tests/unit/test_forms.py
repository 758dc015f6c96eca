"""The modules with a `.pxd` are loaded in the form that this run is meant to show."""

from __future__ import annotations

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import cdcsync

PACKAGE = Path(cdcsync.__file__).parent
FORM = os.environ.get("CDCSYNC_FORM", "")
"""`compiled` or `pure`, said by `make test` and `make test-pure`; empty: either will do."""
SUFFIXES = {"compiled": tuple(EXTENSION_SUFFIXES), "pure": (".py",), "": (*EXTENSION_SUFFIXES, ".py")}
HOT = sorted(PACKAGE.rglob("*.pxd"))


def test_some_modules_have_two_forms() -> None:
    assert HOT


@pytest.mark.parametrize("declaration", HOT, ids=lambda path: path.stem)
def test_a_hot_module_is_loaded_in_the_form_asked_for(declaration: Path) -> None:
    name = ".".join(declaration.relative_to(PACKAGE.parent).with_suffix("").parts)

    module = importlib.import_module(name)

    assert str(module.__file__).endswith(SUFFIXES[FORM])


@pytest.mark.parametrize("declaration", HOT, ids=lambda path: path.stem)
def test_a_hot_module_is_not_older_than_its_source(declaration: Path) -> None:
    source = declaration.with_suffix(".py")
    built = [path for suffix in EXTENSION_SUFFIXES if (path := source.with_name(source.stem + suffix)).exists()]

    assert all(path.stat().st_mtime >= source.stat().st_mtime for path in built)
