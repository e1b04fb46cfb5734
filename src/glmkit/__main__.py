"""`python -m glmkit` is the command `glmkit`; so is each process of `torchrun -m glmkit`."""

from glmkit.cli.main import main

main()
