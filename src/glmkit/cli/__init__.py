"""The command: one table of verbs (main), their bodies by theme (writing, building, demo)."""
