"""File trees: which entries there are (scan), what they hold (read), and putting them back (target)."""
