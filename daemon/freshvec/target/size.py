"""How much disk and log a row's vector takes, by how Postgres and pgvector lay it out."""

from dataclasses import dataclass

from freshvec.storage import Index

_PAGE = 8192
_USABLE = _PAGE - 24  # of a page: the rest is its header
_TUPLE = 24 + 4  # bytes of a row's header, and of its pointer on the page
_OURS = 20 + 20 + 8 + 8  # content_hash, fingerprint, fence, embedded_at
_INLINE = 2032  # a longer row has its vector out of line
_DIGEST = 17  # of a vector in the source, in place of the vector
_CHUNK = 1996  # bytes of a vector in one row of the TOAST table
_CHUNK_ROW = _CHUNK + 12 + _TUPLE + 8
_INDEX_ENTRY = 8 + 4 + 4  # bytes around a key in a btree, whose leaves are 90% full
_RECORD = 60  # bytes around each change in the write-ahead log
# Numbers of vectors per second that are built into an index. Measured on two cores, 384 and 1,024 dimensions.
_HNSW_RATE, _IVFFLAT_RATE = 2.2e6, 36e6
_DIMENSION = {"vector": 4, "halfvec": 2, "real[]": 4}
_HEADER = {"vector": 8, "halfvec": 8, "real[]": 24}


@dataclass(frozen=True)
class Size:
    """Bytes per row: of the target with its key's index, of an index on the vectors (None where the type can
    have none), and of write-ahead log for the target."""

    target: float
    index: float | None
    wal: float


def of_row(dimension: int, kind: str, key_bytes: int, index: Index | None = None) -> Size:
    """The size of one row with a vector of that type and a key of so many bytes; `index` as declared, else
    HNSW."""
    vector = _HEADER[kind] + _DIMENSION[kind] * dimension
    row = _aligned(_TUPLE + key_bytes + _OURS + vector + 8)
    key_index = (_aligned(key_bytes) + _INDEX_ENTRY) / 0.9
    if row <= _INLINE:
        heap, logged = _share_of_pages(row), row + 2 * _RECORD
    else:
        small = _aligned(_TUPLE + key_bytes + _OURS + 18 + 8)
        chunks = -(-vector // _CHUNK)
        last = vector - (chunks - 1) * _CHUNK
        heap = _share_of_pages(small) + (chunks - 1) * _share_of_pages(_CHUNK_ROW)
        heap += last + _CHUNK_ROW - _CHUNK + chunks * _INDEX_ENTRY / 0.9
        logged = small + vector + (2 + 2 * chunks) * _RECORD
    element = None if kind == "real[]" else index_bytes(dimension, kind, index or Index())
    return Size(heap + key_index, element, logged + key_index)


def of_row_in_column(dimension: int, kind: str, key_bytes: int, index: Index | None = None) -> Size:
    """The same of a vector in a column of the source, without the rest of the row that is written with it."""
    vector = _HEADER[kind] + _DIMENSION[kind] * dimension
    row = _aligned(_TUPLE + key_bytes + _OURS + _DIGEST + 8)
    key_index = (_aligned(key_bytes) + _INDEX_ENTRY) / 0.9
    element = None if kind == "real[]" else index_bytes(dimension, kind, index or Index())
    return Size(_share_of_pages(row) + key_index + vector, element, row + vector + key_index + 4 * _RECORD)


def index_bytes(dimension: int, kind: str, index: Index) -> float:
    """Bytes of one vector in an index."""
    vector = _HEADER[kind] + (-(-dimension // 8) if index.binary else _DIMENSION[kind] * dimension)
    if index.type == "ivfflat":
        return _share_of_pages(_aligned(vector + 8 + _TUPLE))
    element, links = _aligned(72 + vector) + 4, _aligned(4 + 6 * (2 * index.links + 1)) + 4
    return _share_of_pages(element + links)


def index_seconds(vectors: int, dimension: int, index: Index) -> float:
    """How long building it takes about: as on two cores, with a graph that fits into maintenance_work_mem."""
    if index.type == "ivfflat":
        return vectors * dimension / _IVFFLAT_RATE
    work = index.candidates / 64 * (0.6 if index.binary else 1.0)
    return vectors * dimension * work / _HNSW_RATE


def _aligned(size: float) -> int:
    return int(-(-size // 8) * 8)


def _share_of_pages(size: float) -> float:
    """Bytes of pages that a row of that size takes: what is left over on a page is lost."""
    return _PAGE / max(1, _USABLE // size)
