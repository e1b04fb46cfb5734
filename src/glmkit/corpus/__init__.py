"""Raw text -> Documents: `sources` reads, `steps` clean and drop, `prepare` in tokens encodes.

`read_documents` is the one way in, whatever the format; it knows no tokenizer and no model.
"""

from glmkit.corpus.cleaning import normalise
from glmkit.corpus.document import Document, ReadLog
from glmkit.corpus.sources import read_documents
from glmkit.corpus.steps.settings import Steps

__all__ = ["Document", "ReadLog", "Steps", "normalise", "read_documents"]
