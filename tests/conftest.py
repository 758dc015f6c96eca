"""What every test may use: one family of fixtures per `fix_*.py`."""

from __future__ import annotations

pytest_plugins = ["fix_postgres"]
