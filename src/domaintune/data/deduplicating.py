"""Which documents nearly repeat one of a side that must not know them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.data.documents import Documents
from domaintune.data.fields import Format
from domaintune.files.progress import progress

FORMAT = 4  # raise when the same documents would be judged otherwise
SHINGLE = 4  # characters
SIMILAR = 0.55  # Jaccard similarity of the shingles from which on two texts are near duplicates
# A pair at 0.55 is missed once in 400 times, (1 - 0.55 ** 4) ** 64, at 0.6 once in 7,000 times.
PERMUTATIONS, BANDS = 256, 64
DOUBT = 0.12  # four standard errors of an estimate from so many permutations
COMPARED = 8  # of the candidates, those that seem nearest
# Of those that share a band. Thousands do in texts from one template, by the template alone: what two of them have in
# common besides shows in other bands, which few share.
FROM_A_BAND = 16
BATCH_BYTES = 2_000_000


def near_duplicates(documents: Documents, sides: list[npt.NDArray[np.bool_]], format: Format) -> npt.NDArray[np.bool_]:
    """Marks the documents of a side that nearly repeat one of a side before it.

    Two texts are near duplicates where their sets of 4-character shingles, in lower case and with all white space
    alike, have a Jaccard similarity of 0.55 or more: of 15 words about three pairs may have changed places. Candidates
    come from MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets,
    chapter 3); the nearest are then compared exactly, so nothing is left out by an estimate.

    The work grows with the number of documents, also where all of them are from one template.

    Args:
        sides: (D,) masks that exclude each other: sets that were given, validation, test, training. Of the last none is
            looked up later.
        format: of the documents: it says by what of a record two are compared.

    Returns:
        (D,) True where a document is to be left out.
    """
    from rensa import RMinHash

    digests = np.empty((sum(int(side.sum()) for side in sides[:-1]), PERMUTATIONS), dtype=np.uint32)
    indexed = np.empty(len(digests), dtype=np.int64)  # the document of each row of `digests`
    rows, found = 0, np.zeros(len(documents), dtype=bool)
    with progress("comparing", int(sum(side.sum() for side in sides)), "documents") as advance:
        for number, side in enumerate(sides):
            # Of the sides before: copies inside a side do no harm.
            index = _Bands(digests[:rows])
            for document, record in _of_side(documents, side):
                shingles = _shingles(format.compared(record))
                signature = RMinHash(num_perm=PERMUTATIONS, seed=0)
                signature.update(list(shingles))
                digest = np.array(signature.digest(), dtype=np.uint32)
                advance(1)
                candidates = index.sharing(digest)
                nearest = indexed[_nearest(candidates, (digests[candidates] == digest).mean(axis=1))]
                if any(
                    _similarity(shingles, _shingles(format.compared(documents[other]))) >= SIMILAR for other in nearest
                ):
                    found[document] = True
                elif number < len(sides) - 1:
                    digests[rows], indexed[rows] = digest, document
                    rows += 1
    return found


class _Bands:
    """Finds which of some digests share a band with another.

    Args:
        digests: (N, PERMUTATIONS).
    """

    def __init__(self, digests: npt.NDArray[np.uint32]) -> None:
        keys = np.ascontiguousarray(_band_keys(digests).T)
        self._rows = np.argsort(keys, axis=1, kind="stable")
        self._keys = np.take_along_axis(keys, self._rows, axis=1)

    def sharing(self, digest: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """The rows of the digests that share a band with this one, in their order; of each band the first few."""
        found = [np.empty(0, dtype=np.int64)]
        for band, key in enumerate(_band_keys(digest[None])[0]):
            keys = self._keys[band]
            first = int(np.searchsorted(keys, key))
            end = first + int(np.searchsorted(keys[first : first + FROM_A_BAND], key, side="right"))
            found.append(self._rows[band, first:end])
        return np.unique(np.concatenate(found))


def _band_keys(digests: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """(N, BANDS) a number for what stands in each band of (N, PERMUTATIONS) digests."""
    keys = np.zeros((len(digests), BANDS), dtype=np.uint64)
    for column in np.moveaxis(digests.reshape(len(digests), BANDS, PERMUTATIONS // BANDS), 2, 0):
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _nearest(candidates: npt.NDArray[np.int64], estimates: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The few that may be near enough, the nearest first."""
    order = np.argsort(-estimates, kind="stable")[:COMPARED]
    return candidates[order[estimates[order] >= SIMILAR - DOUBT]]


def _of_side(documents: Documents, side: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Any]]:
    for first, end in documents.batches(BATCH_BYTES):
        if side[first:end].any():
            yield from (
                (number, record) for number, record in enumerate(documents.records(first, end), first) if side[number]
            )


def _shingles(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))}


def _similarity(shingles: set[str], others: set[str]) -> float:
    return len(shingles & others) / len(shingles | others)
