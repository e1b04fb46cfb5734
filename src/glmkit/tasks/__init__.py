"""Labelled data -> blanks: what a task asks and how (task, templates, catalog/), its samples (encoding, prepare), mixtures."""
