"""Types of settings that are names: checked against what the code knows, torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from trainables.names import AUGMENTATIONS, DSA_OPERATIONS, REAL_DATASETS, STUDENTS


@dataclass(frozen=True, slots=True)
class OneOf:
    """A string out of a fixed tuple; `trainables.config` owns the names."""

    values: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.literal_schema(list(self.values))


class Network:
    """A network's name: one of ours, or torchvision/NAME or timm/NAME (checked when it is built)."""

    values = (*STUDENTS, "torchvision/NAME", "timm/NAME")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, name: str) -> str:
        if name in STUDENTS or re.fullmatch(r"(torchvision|timm)/[\w.-]+", name):
            return name
        raise PydanticCustomError("network", "must be one of {valid}", {"valid": ", ".join(self.values)})


class Strategy:
    """An augmentation's name, or a strategy of DSA."""

    values = (*AUGMENTATIONS, "_".join(DSA_OPERATIONS))

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, name: str) -> str:
        operations = name.split("+" if "+" in name else "_")
        if name in AUGMENTATIONS or (
            set(operations) <= set(DSA_OPERATIONS) and len(set(operations)) == len(operations)
        ):
            return name
        raise PydanticCustomError(
            "augment",
            "must be one of {valid} (or part of it; with + in place of _ all of them act)",
            {"valid": ", ".join(self.values)},
        )


class RealName:
    """Real data by name, or a path (with a slash in it)."""

    values = (*REAL_DATASETS, "PATH/TO/TREE")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic checks it."""
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def _check(self, name: str) -> str:
        if name in REAL_DATASETS or "/" in name:
            return name
        raise PydanticCustomError("real", "must be one of {valid}", {"valid": ", ".join(self.values)})
