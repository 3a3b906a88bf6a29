"""YAML from outside (spaces, sidecars, `--set`): one loader with limits, so that a small text stays a small document.

No torch. Merge keys (`<<`) and two equal keys are refused; aliases are spelled out only up to MOST_VALUES.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

#: Values of a document with its aliases spelled out, keys of one mapping, and levels.
MOST_VALUES: Final = 100_000
MOST_KEYS: Final = 2_000
MOST_LEVELS: Final = 50
#: Characters of an integer: those of 64 bits with room for underscores and zeros.
MOST_DIGITS: Final = 200


def read_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: If it is not readable, or larger than the limits; the message is one line without a full stop.
    """
    try:
        document = yaml.load(text, Loader=_BoundedLoader)
    except yaml.YAMLError as err:
        raise ValueError(" ".join(str(err).split())) from err
    except RecursionError as err:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep; does an alias contain itself?") from err
    except Exception as err:  # PyYAML makes numbers and dates without looking: 2026-13-45, a number of 5,000 digits
        raise ValueError(f"a value that is no number and no date ({' '.join(str(err).split())[:200]})") from err
    _require_few_values(document)
    return document


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with limits."""

    _level = 0

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Python does not print an integer of more than 4,300 digits, and hexadecimal or base 60 makes one."""
        value = int(super().construct_yaml_int(node)) if len(node.value) <= MOST_DIGITS else 2**64
        if not -(2**63) <= value < 2**64:
            raise yaml.constructor.ConstructorError(None, None, "an integer of more than 64 bits", node.start_mark)
        return value

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._level += 1
        if self._level > MOST_LEVELS:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MOST_LEVELS} levels deep", None)
        if isinstance(parent, yaml.MappingNode) and len(parent.value) >= MOST_KEYS:
            raise yaml.composer.ComposerError(
                None, None, f"more than {MOST_KEYS} keys in one mapping", parent.start_mark
            )
        node = super().compose_node(parent, index)
        self._level -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not taken; write the keys out", key.start_mark
                )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):  # PyYAML keeps the last of two equal keys silently
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            number = next(number for number, key in enumerate(keys) if key in keys[:number])
            raise yaml.constructor.ConstructorError(
                None, None, f"key {keys[number]!r} is given twice", node.value[number][0].start_mark
            )
        return mapping


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def _require_few_values(document: Any) -> None:
    """Aliases of aliases make a small text a huge document, long before anything looks at it."""
    counts: dict[int, int] = {}

    def count(value: Any) -> int:
        if not isinstance(value, dict | list | set | tuple):
            return 1
        if id(value) not in counts:
            counts[id(value)] = MOST_VALUES  # an alias of a container in itself
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            counts[id(value)] = 1 + sum(map(count, inner))
        return counts[id(value)]

    if count(document) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} values, with its aliases spelled out")
