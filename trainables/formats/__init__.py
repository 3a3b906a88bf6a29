"""Files people bring: recognise a distilled set, a label store or a checkpoint by its content, and read it."""
