"""Errors for people: one line, printable, of limited length."""

import errno

from ddpm import UserError
from ddpm.utils.errors import explained, first_line, plain


def test_a_text_can_be_printed_on_any_terminal():
    assert str(UserError("a\x1b[2Jb\nc\u202ed")) == "a\\x1b[2Jb\\nc\\u202ed"
    assert plain("a" * 50 + "b" * 50, 10) == "aaaaa … bbbbb"
    assert len(str(UserError("\0" * 10**6))) < 2000


def test_the_first_line_of_an_error():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_what_the_system_refused():
    assert "the disk is full, at a.txt" in explained(OSError(errno.ENOSPC, "", "a.txt"))
    assert "a.txt or its folder is missing" in explained(OSError(errno.ENOENT, "", "a.txt"))
    assert "a.txt may not be written" in explained(OSError(errno.EACCES, "denied", "a.txt"))
