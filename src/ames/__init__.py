"""AMES: asymmetric and memory-efficient similarity for instance-level image retrieval.

The names below are the public ones; ``__init__.pyi`` tells type checkers the same. Each is loaded when it is
first used: ``import ames`` loads nothing.
"""

from typing import Any

__version__ = "0.1.0"
DISTRIBUTION = "ames-retrieval"  # on the package index; "ames" there is another project

_PUBLIC = {
    "AmesError": "ames.errors",
    "BytesStore": "ames.reranking.code_stores",
    "CodeStore": "ames.reranking.code_stores",
    "Database": "ames.database.store",
    "Extractor": "ames.extraction.extractor",
    "Fusion": "ames.reranking.fusion",
    "Hit": "ames.reranking.reranker",
    "ImageFeatures": "ames.backbones.base",
    "LocalFeatures": "ames.features",
    "Reranker": "ames.reranking.reranker",
    "Retriever": "ames.retrieval.retriever",
    "Shortlist": "ames.global_search.shortlist",
    "evaluate": "ames.evaluation.folder",
    "index_photos": "ames.retrieval.indexing",
    "list_models": "ames.models.registry",
    "load_model": "ames.models.load",
    "pack_codes": "ames.reranking.code_stores",
    "search": "ames.global_search.exact",
    "unpack_codes": "ames.reranking.code_stores",
}
__all__ = [*sorted(_PUBLIC), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ames' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
