"""A module of ours and all that it imports of ours, as one file that needs no ddpm."""

import ast
from collections.abc import Iterator
from pathlib import Path

EXPORTED = Path(__file__).parent / "exported"


def single_file_source(path: Path) -> str:
    """Return the source of a module of ours, after that of those that it imports; what they import
    of others stands at the top."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}  # imported from each module
    bodies: list[str] = []
    done: set[Path] = set()

    def visit(path: Path) -> None:
        done.add(path)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        left_out = [node for node in tree.body if is_import(node) or is_docstring(node)]
        for node in (n for top in left_out for n in ast.walk(top)):
            if isinstance(node, ast.ImportFrom) and node.level:
                source = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
                if (needed := source.with_suffix(".py")) not in done:
                    visit(needed)
            elif isinstance(node, ast.ImportFrom):
                names.setdefault(node.module or "", set()).update(map(ast.unparse, node.names))
            elif isinstance(node, ast.Import):
                plain.add(ast.unparse(node))
        lines = text.splitlines()
        for node in left_out:
            first, last = node.lineno - 1, node.end_lineno or node.lineno
            lines[first:last] = [""] * (last - first)
        bodies.append("\n".join(lines).strip())

    visit(path)
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    names.pop("__future__", None)
    imports = [f"from {module} import {', '.join(sorted(names[module]))}" for module in names]
    head = "\n".join([f'"""{about}"""', "", *sorted(plain), *sorted(imports)])
    return "\n\n\n".join([head, *bodies]) + "\n"


def is_import(node: ast.stmt) -> bool:
    """Return whether this is an import, or an `if TYPE_CHECKING` around some."""
    inside: Iterator[ast.stmt] = iter(node.body if isinstance(node, ast.If) else [node])
    return all(isinstance(n, ast.Import | ast.ImportFrom) for n in inside)


def is_docstring(node: ast.stmt) -> bool:
    """Return whether this is a text that stands alone: a module's docstring, or a type's."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
