"""Scores, the masks that they select, and how masks sit on an encoder."""
