"""Make what a recipe asks for: real data, distilled set, teacher, label bank; once, in a content-addressed cache."""

from trainables.prepare.entry import prepare

__all__ = ["prepare"]
