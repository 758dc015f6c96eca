"""Declared table mappings, compiled to plain functions over rows."""

from cdcsync.mapping.model import Rule, TableMapping
from cdcsync.mapping.transform import Mapping

__all__ = ["Mapping", "Rule", "TableMapping"]
