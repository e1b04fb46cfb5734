"""GLM's objectives beside BERT's and GPT's on one budget: pretraining, the same downstream tasks, a table and a picture."""
