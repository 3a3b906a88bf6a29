"""Data of a trial: real splits, the distilled set, the teacher and its label bank."""
