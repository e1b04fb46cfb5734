"""`glmkit demo`: what glm-mini does, then a pretraining run of a minute.

command    the verb
screen     headings, results, bars: coloured in a terminal, plain in a log
showcase   every application on the embedded model
corpus     text that every machine has
pipeline   corpus -> vocabulary -> stores -> GLM -> filled blanks
"""

from glmkit.cli.demo.command import demo

__all__ = ["demo"]
