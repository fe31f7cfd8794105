"""Which documents nearly repeat one of a side that must not know them."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.data.documents import Documents
from domaintune.data.rows import GIVEN_FORMATS, given
from domaintune.progress import progress

FORMAT = 3  # raise when the same documents would be judged otherwise
SHINGLE = 4  # characters
SIMILAR = 0.55  # Jaccard similarity of the shingles from which on two texts are near duplicates
# A pair at 0.55 is missed once in 400 times, (1 - 0.55 ** 4) ** 64, at 0.6 once in 7,000 times.
PERMUTATIONS, BANDS = 256, 64
DOUBT = 0.12  # four standard errors of an estimate from so many permutations
COMPARED = 8  # of the candidates, those that seem nearest; or thousands alike in a template would take hours
BATCH_BYTES = 2_000_000


def near_duplicates(documents: Documents, sides: list[npt.NDArray[np.bool_]], format: str) -> npt.NDArray[np.bool_]:
    """Marks the documents of a side that nearly repeat one of a side before it.

    Two texts are near duplicates where their sets of 4-character shingles, in lower case and with all white space
    alike, have a Jaccard similarity of 0.55 or more: of 15 words about three pairs may have changed places. Candidates
    come from MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al., Mining of Massive Datasets,
    chapter 3); the nearest are then compared exactly, so nothing is left out by an estimate.

    Args:
        sides: (D,) masks that exclude each other: validation, test, training. Of the last none is looked up later.
        format: of `data.format`. Of instructions what is asked and answered counts, of labels, entities and pairs
            what is given.

    Returns:
        (D,) True where a document is to be left out.
    """
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS, num_bands=BANDS)
    digests = np.empty((sum(int(side.sum()) for side in sides[:-1]), PERMUTATIONS), dtype=np.uint32)
    indexed = np.empty(len(digests), dtype=np.int64)  # the document of each row of `digests`
    rows, found = 0, np.zeros(len(documents), dtype=bool)
    with progress("comparing", int(sum(side.sum() for side in sides)), "documents") as advance:
        for number, side in enumerate(sides):
            for document, text in _of_side(documents, side):
                shingles = _shingles(text, format)
                signature = RMinHash(num_perm=PERMUTATIONS, seed=0)
                signature.update(list(shingles))
                digest = np.array(signature.digest(), dtype=np.uint32)
                advance(1)
                candidates = np.array(index.query(signature), dtype=np.int64)
                # What `index` holds of this very side is no reason: copies inside a side do no harm.
                candidates = candidates[~side[indexed[candidates]]]
                nearest = indexed[_nearest(candidates, (digests[candidates] == digest).mean(axis=1))]
                if any(_similarity(shingles, _shingles(documents[other], format)) >= SIMILAR for other in nearest):
                    found[document] = True
                elif number < len(sides) - 1:
                    index.insert(rows, signature)
                    digests[rows], indexed[rows] = digest, document
                    rows += 1
    return found


def _nearest(candidates: npt.NDArray[np.int64], estimates: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The few that may be near enough, the nearest first."""
    order = np.argsort(-estimates, kind="stable")[:COMPARED]
    return candidates[order[estimates[order] >= SIMILAR - DOUBT]]


def _of_side(documents: Documents, side: npt.NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    for first, end in documents.batches(BATCH_BYTES):
        if side[first:end].any():
            yield from (
                (number, text) for number, text in enumerate(documents.texts(first, end), first) if side[number]
            )


def _shingles(text: str, format: str) -> set[str]:
    if format == "instructions":  # short rows would be alike by the names of their fields
        row: dict[str, Any] = json.loads(text)
        turns = [turn["content"] for turn in row.get("messages", ()) if turn["role"] != "system"]  # often one for all
        text = " ".join(turns or row.values())
    elif format in GIVEN_FORMATS:
        text = given(text)
    plain = " ".join(text.lower().split())
    return {plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))}


def _similarity(shingles: set[str], others: set[str]) -> float:
    return len(shingles & others) / len(shingles | others)
