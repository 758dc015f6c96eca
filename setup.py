"""Builds the modules that have a `.pxd` beside them as extensions, where Cython and a C compiler are present.

`CDCSYNC_PURE=1` builds none. A failure to compile is told and leaves the plain Python form, which runs as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent


def extensions() -> list[Extension]:
    """Return one extension per `cdcsync/**/NAME.pxd` with a `NAME.py`."""
    if os.environ.get("CDCSYNC_PURE", "0") not in {"", "0"}:
        tell("CDCSYNC_PURE is set: no extensions, plain Python")
        return []
    try:
        from Cython.Build import cythonize  # noqa: PLC0415  Cython may be missing
    except ImportError:
        tell("Cython is missing: no extensions, plain Python")
        return []
    sources = sorted(path.with_suffix(".py").relative_to(HERE) for path in (HERE / "cdcsync").rglob("*.pxd"))
    wanted = [
        Extension(".".join(source.with_suffix("").parts), [str(source)], optional=True, extra_compile_args=["-O2"])
        for source in sources
    ]
    if not wanted:
        return []
    built: list[Extension] = cythonize(
        wanted,
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "annotation_typing": False, "binding": True},
        quiet=True,
    )
    for extension in built:
        extension.optional = True
    return built


def tell(message: str) -> None:
    """Print where pip shows it with -v and on failure."""
    sys.stderr.write(f"cdcsync: {message}\n")


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
