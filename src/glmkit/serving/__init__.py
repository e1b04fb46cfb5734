"""A loaded GLM as a server: OpenAI's interface and GLM's own, over one engine that batches continuously."""
