"""Raw text -> Documents: `sources` reads, `cleaning` normalises and drops, `prepare` in tokens encodes.

`read_documents` is the one way in, whatever the format; it knows no tokenizer and no model.
"""

from glmkit.corpus.cleaning import Cleaner, normalise
from glmkit.corpus.document import Document, ReadLog
from glmkit.corpus.sources import read_documents

__all__ = ["Cleaner", "Document", "ReadLog", "normalise", "read_documents"]
