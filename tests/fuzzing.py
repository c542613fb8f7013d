"""How tests damage files: bytes and tables of which a few entries are something else.

DDPM_FUZZ=10000 makes 10,000 cases of each kind where a normal run makes a few; the cases are always
the same.
"""

import json
import os
import struct
from copy import deepcopy

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from promise import SECONDS

CASES = int(os.environ.get("DDPM_FUZZ", 0)) or 25

fuzz = settings(
    max_examples=CASES, deadline=1000 * SECONDS, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate, Phase.shrink],
)  # fmt: skip


NUMBERS = [0, 1, 2, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
HUGE = "9" * 5000  # what stands for it in a text is a number that Python will not read or write

wounds = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "insert", "repeat", "number", "swap"]),
        st.integers(0, 2**20),
        st.integers(0, 2**20),
        st.sampled_from([*NUMBERS, *range(3, 20)]),
        st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]),
        st.binary(max_size=12),
    ),
    min_size=1,
    max_size=3,
)
few = st.one_of(st.just([]), st.just([]), wounds)


def damaged(data, wounds):
    """The bytes with a few of them turned, cut off, left out, put in, repeated or exchanged."""
    data = bytearray(data)
    for how, a, b, number, form, some in wounds:
        n = len(data)
        if not n:
            break
        # Half of them lie in the first bytes or the last, where formats have their heads.
        near = a // 4 % min(n, 80)
        at = (a // 4 % n, a // 4 % n, near, n - 1 - near)[a % 4]
        size = 1 + b % 16
        if how == "flip":
            data[at] ^= 1 << b % 8
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + size]
        elif how == "insert":
            data[at:at] = some
        elif how == "repeat":
            data[at:at] = data[at : at + size] * (1 + b % 50)
        elif how == "number":
            size = struct.calcsize(form)
            data[at : at + size] = struct.pack(form, number % 256**size)
        else:
            first, second = sorted((at, b % n))
            data[first:] = data[second:] + data[first:second]
    return bytes(data)


odd_text = st.one_of(
    st.sampled_from(["", ".", "..", "../../x", "/x", "\x1b[2J", "a\nb", "\x00", "\u202e", "é"]),
    st.text(max_size=8),
)
odd_values = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 1, 2, 3, 7, 64, 65, 8192, 2**31, 2**53, 2**63, 2**64, 10**30,
         -(10**30), "HUGE", 0.5, 1e-320, 1e300, float("nan"), float("inf"), -float("inf"), "ema",
         "cosine", "nan", "x" * 5000, [], {}, [[]], {"": {}}, [0] * 40, [1] * 10_000, ["x"] * 100,
         {str(i): i for i in range(500)}]
    ),
    odd_text,
    st.integers(),
    st.floats(),
    st.builds(lambda depth, table: nested(depth, table), st.integers(1, 100), st.booleans()),
)  # fmt: skip
pokes = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "set", "remove", "add", "rename"]),
        st.lists(st.integers(0, 63), min_size=1, max_size=4),
        odd_text,
        odd_values,
    ),
    max_size=3,
)


def nested(depth, table):
    value = 1
    for _ in range(depth):
        value = {"a": value} if table else [value]
    return value


def poked(tree, pokes):
    """Tables and lists of which a few entries are something else, gone, new or under a new name."""
    tree = json.loads(json.dumps(tree))
    for how, way, name, value in pokes:
        node, value = tree, deepcopy(value)
        for step in way[:-1]:
            parts = node.values() if isinstance(node, dict) else node
            inner = [v for v in parts if isinstance(v, dict | list) and v]
            node = inner[step % len(inner)] if inner else node
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[way[-1] % len(keys)]
        if how == "remove" and len(keys) > 1:
            del node[key]
        elif how in ("add", "rename") and isinstance(node, dict):
            node[name] = node.pop(key) if how == "rename" else value
        else:
            node[key] = value
    return tree


def as_json(tree):
    return json.dumps(tree).replace('"HUGE"', HUGE)
