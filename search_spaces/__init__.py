"""Spaces: what may vary, what is tuned, what is fixed. YAML files and the loader that checks them."""

from search_spaces.errors import ConfigError
from search_spaces.loader import load_space, shipped_spaces
from search_spaces.space import Arm, Space

__all__ = ["Arm", "ConfigError", "Space", "load_space", "shipped_spaces"]
