"""A suite of questions put to definitions, and how they compare."""
