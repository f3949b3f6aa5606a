"""The words of `data.source`, and the kind of data behind each."""

from __future__ import annotations

# Word -> domain, a module of sgmae_jax/domains; a word that ends in ":" has a name
# behind it.
SOURCES = {
    "synthetic": "images",
    "folder": "images",
    "pairs": "images",
    "tfds:": "images",
    "table": "rows",
    "text": "rows",
    "synthetic_roads": "scenes",
    "scenes": "scenes",
    "argoverse2": "scenes",
}


def domain_of(source: object) -> str | None:
    """The domain of a data source, None if there is no such source."""
    if not isinstance(source, str):
        return None
    word, colon, name = source.partition(":")
    if bool(colon) != bool(name):
        return None
    return SOURCES.get(word + colon)


def words() -> str:
    """The sources there are, for messages."""
    *most, last = (f"{w}<name>" if w.endswith(":") else w for w in SOURCES)
    return f"{', '.join(most)} or {last}"


def rule(value: object) -> str | None:
    """A data source there is; see sgmae_jax/rules.py."""
    return words() if domain_of(value) is None else None
