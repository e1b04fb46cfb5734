"""The page in the browser: what a served GLM can do, to be tried out by a person (`mounting.mount`)."""
