"""Whether files are the ones that a data set's authors published, by checksums that are given where they come from."""

import hashlib
from collections.abc import Mapping

from posterity.data.files import digest
from posterity.data.sets import Known


def remark(known: Known, contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """Say which files, of these contents by name, are not known to be the published ones.

    >>> from posterity.data.sets import SETS
    >>> remark(SETS["cifar-10"], {"test_batch": b"another"})
    ('Not the published file: test_batch; its contents have another checksum.',)
    """
    others = [name for name, content in contents.items() if not sums(content) & known.published.get(name, frozenset())]
    if not others:
        return ()
    wrong, unknown = ([n for n in others if (n in known.published) == there] for there in (True, False))
    sentences = []
    if wrong:
        sentences.append(f"Not the published file: {', '.join(wrong)}; its contents have another checksum.")
    if unknown:
        sentences.append(f"Not the published file, as far as is known: {', '.join(unknown)}; none gives its checksum.")
    return tuple(sentences)


def sums(content: bytes) -> frozenset[str]:
    """Return the SHA-256 and the MD5 of some bytes; the authors of CIFAR give the latter, which nothing here relies on."""
    return frozenset((digest(content), hashlib.md5(content, usedforsecurity=False).hexdigest()))
