"""Damaged and made-up settings.

Each is read, or refused in a sentence, in little time and memory.
"""

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ddpm.config import Config, read_toml, to_dict, validated
from fuzzing import (
    HUGE,
    damaged,
    fuzz,
    poked,
    pokes,
    wounds,
)
from promise import promised

pytestmark = pytest.mark.usefixtures("bounded")


texts = st.one_of(
    st.builds(lambda pokes: tomli_w.dumps(tomlable(poked(to_dict(Config(steps=4)), pokes))), pokes),
    st.text(max_size=200),
    st.builds(
        lambda a, n, b: a + b * n,
        st.sampled_from(["steps = ", "x", "[", "unet.", "steps = [", "[unet]\n", "data = '"]),
        st.sampled_from([1, 10, 500, 5000, 100_000]),
        st.sampled_from(["[", "{a=", "a.", "9", "x = 1\n", "'", '"', "[[a]]\n", "\\", "0x", "é"]),
    ),
    st.builds(lambda value: f"steps = {value}", st.sampled_from([HUGE, "0x" + "f" * 5000])),
    st.integers(1, 5000).map(lambda n: "a." * n + "a = 1"),
    st.integers(1, 2000).map(lambda n: "".join(f"x{i} = {i}\n" for i in range(n))),
)


def tomlable(tree):
    """The same without what TOML has no word for."""
    if isinstance(tree, dict):
        return {k: tomlable(v) for k, v in tree.items() if v is not None}
    return [tomlable(v) for v in tree if v is not None] if isinstance(tree, list) else tree


@fuzz
@given(texts, wounds)
def test_config_files(place, text, wounds):
    with place() as folder:
        path = folder / "config.toml"
        text = text.replace('"HUGE"', HUGE)
        path.write_bytes(damaged(text.encode("utf-8", "surrogatepass"), wounds))
        with promised():
            assert isinstance(read_toml(path), Config)


@fuzz
@given(pokes)
def test_tables_of_settings(pokes):
    with promised():
        config = validated(Config, poked(to_dict(Config(steps=4)), pokes), "here")
        assert validated(Config, to_dict(config)) == config
