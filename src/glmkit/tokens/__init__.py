"""Documents -> ids: tokenizers (published and trained), vocabulary training, and the token store."""
