"""The corpus: patches of many slides in one sharded Zarr v3 store, for pretraining.

The schema is written down in ``docs/corpus.md``.
"""

from wsipipe.corpus.read import Corpus, is_corpus, open_corpus

__all__ = ["Corpus", "is_corpus", "open_corpus"]
