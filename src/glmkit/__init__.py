"""glmkit: the home of GLM (General Language Model, autoregressive blank infilling)."""
