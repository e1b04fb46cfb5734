"""A task, data, a machine -> which GLM, trained how, what that takes; and when another family is the better answer."""
