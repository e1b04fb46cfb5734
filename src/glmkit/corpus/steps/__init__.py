"""What happens to a text between a source and a tokenizer: each step is a function of the text, or a stage of datatrove.

`settings` names them all; `rules` puts the ones that are asked for in order.
"""
