"""The data source says what kind of data a run has, and a method what it takes."""

import pytest

from sgmae_jax import domains, methods, sources
from sgmae_jax.config import ConfigError, default_config, load_config

OFFERED = (
    *("check", "check_mask", "open_source", "check_stream", "facts", "make_rows"),
    *("make_scorer", "artists", "title"),
)


@pytest.mark.parametrize("name", sorted(set(sources.SOURCES.values())))
def test_a_domain_offers_what_the_loop_asks_for(name):
    domain = domains.load(name)
    assert all(callable(getattr(domain, function)) for function in OFFERED)
    assert domain.UNIT and domain.SHORT


@pytest.mark.parametrize("word", sources.SOURCES)
def test_every_source_is_known_with_its_name(word):
    given = word + "flowers" if word.endswith(":") else word
    assert sources.domain_of(given) == sources.SOURCES[word]
    assert sources.rule(given) is None


@pytest.mark.parametrize("word", ["tfds", "tfds:", "folder:", "folder:x", "", None, 3])
def test_what_is_no_source(word):
    assert sources.domain_of(word) is None
    assert "synthetic, folder" in sources.rule(word)


@pytest.mark.parametrize("name", methods.METHODS)
def test_methods_take_domains_that_there_are(name):
    assert set(methods.domains_of(name)) <= set(sources.SOURCES.values())


def test_a_method_must_take_the_kind_of_data(monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "songs", "songs")
    with pytest.raises(ConfigError, match="holds songs, method mae takes images"):
        load_config("quickstart", [("data.source", "songs")])
    config = default_config()
    config.data.source = None
    with pytest.raises(ConfigError, match="must be named"):
        domains.of_config(config)
