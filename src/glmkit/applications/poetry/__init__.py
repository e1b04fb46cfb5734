"""Poems that keep their form: forms and their metre, sounds of characters, the constraint, the checker, the writing."""
