from typing import Final

from ames.backbones.base import ImageFeatures as ImageFeatures
from ames.database.store import Database as Database
from ames.errors import AmesError as AmesError
from ames.evaluation.folder import evaluate as evaluate
from ames.extraction.extractor import Extractor as Extractor
from ames.features import LocalFeatures as LocalFeatures
from ames.global_search.exact import search as search
from ames.global_search.shortlist import Shortlist as Shortlist
from ames.models.load import load_model as load_model
from ames.models.registry import list_models as list_models
from ames.reranking.code_stores import BytesStore as BytesStore
from ames.reranking.code_stores import CodeStore as CodeStore
from ames.reranking.code_stores import pack_codes as pack_codes
from ames.reranking.code_stores import unpack_codes as unpack_codes
from ames.reranking.fusion import Fusion as Fusion
from ames.reranking.reranker import Hit as Hit
from ames.reranking.reranker import Reranker as Reranker
from ames.retrieval.indexing import index_photos as index_photos
from ames.retrieval.retriever import Retriever as Retriever

__version__: Final[str]
DISTRIBUTION: Final[str]
