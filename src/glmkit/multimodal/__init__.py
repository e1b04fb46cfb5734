"""Images, sounds and clips in part A: files -> tensors -> rows of embeddings that a GLM reads beside its words."""
