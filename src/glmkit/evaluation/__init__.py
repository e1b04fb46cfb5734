"""Weights -> numbers: how surprised a model is by texts, left to right and on blanks."""
