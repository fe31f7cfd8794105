"""Which documents nearly repeat one of a side that must not know them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from domaintune.data.documents import Documents
from domaintune.progress import progress

FORMAT = 1  # raise when the same documents would be judged otherwise
SHINGLE = 5  # characters
SIMILAR = 0.7  # Jaccard similarity of the shingles from which on two texts are near duplicates
PERMUTATIONS, BANDS = 128, 32  # a pair at SIMILAR is missed once in 6,000 times: (1 - 0.7 ** 4) ** 32
BATCH_BYTES = 2_000_000


def near_duplicates(documents: Documents, sides: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Marks the documents of a side that nearly repeat one of a side before it.

    Two texts are near duplicates where their sets of 5-character shingles, in lower case and with all white space
    alike, have a Jaccard similarity of 0.7 or more. Candidates come from MinHash with locality-sensitive hashing
    (Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3); each is then compared exactly, so nothing is
    left out by an estimate.

    Args:
        sides: (D,) masks that exclude each other: validation, test, training. Of the last none is looked up later.

    Returns:
        (D,) True where a document is to be left out.
    """
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS, num_bands=BANDS)
    found = np.zeros(len(documents), dtype=bool)
    with progress("comparing", int(sum(side.sum() for side in sides)), "documents") as advance:
        for number, side in enumerate(sides):
            for document, text in _of_side(documents, side):
                shingles = _shingles(text)
                signature = RMinHash(num_perm=PERMUTATIONS, seed=0)
                signature.update(list(shingles))
                advance(1)
                earlier = (int(other) for other in index.query(signature))
                # What `index` holds of this very side is no reason: copies inside a side do no harm.
                if any(not side[other] and _similarity(shingles, documents[other]) >= SIMILAR for other in earlier):
                    found[document] = True
                elif number < len(sides) - 1:
                    index.insert(document, signature)
    return found


def _of_side(documents: Documents, side: npt.NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    for first, end in documents.batches(BATCH_BYTES):
        if side[first:end].any():
            yield from (
                (number, text) for number, text in enumerate(documents.texts(first, end), first) if side[number]
            )


def _shingles(text: str) -> set[str]:
    plain = " ".join(text.lower().split())
    return {plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))}


def _similarity(shingles: set[str], text: str) -> float:
    others = _shingles(text)
    return len(shingles & others) / len(shingles | others)
