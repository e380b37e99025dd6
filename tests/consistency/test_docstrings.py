"""Every public name is documented, and no docstring tells of others' names."""

import ast
import re

from repository_files import name_of, package_files, parse

SECTION = re.compile(
    r"^Arguments\n-{9}\n(?P<body>.*?)(?=^\w+\n-{3,}$|\Z)", re.M | re.S
)
# "a : int", "b, c : str" or "*args": what starts a line, up to its type.
ENTRY = re.compile(r"^(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: :|$)", re.M)


def public_definitions(path):
    """Yield (qualified name, node, class node or None), public ones only."""
    tree = parse(path)
    yield name_of(path), tree, None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"{name_of(path)}::{node.name}", node, None
            for inner in node.body:
                if is_public_function(inner):
                    name = f"{name_of(path)}::{node.name}.{inner.name}"
                    yield name, inner, node
        elif is_public_function(node):
            yield f"{name_of(path)}::{node.name}", node, None


def is_public_function(node):
    """Tell whether a syntax node defines a public function."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def parameters(function):
    """Return the parameter names of a function, without self and cls."""
    spec = function.args
    names = [a.arg for a in spec.posonlyargs + spec.args + spec.kwonlyargs]
    names += [a.arg for a in (spec.vararg, spec.kwarg) if a is not None]
    return {name for name in names if name not in {"self", "cls"}}


def class_parameters(node):
    """Return what makes an object, and what of it must be documented.

    That is the parameters of __init__, or a dataclass's fields; a field that
    starts out as an empty container need not be named.
    """
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return parameters(inner), parameters(inner)
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return None
    fields = {
        inner.target.id: ast.unparse(inner)
        for inner in node.body
        if isinstance(inner, ast.AnnAssign)
        and not inner.target.id.startswith("_")
    }
    plain = {name for name, code in fields.items() if "field(" not in code}
    return set(fields), plain


def documented(docstring):
    """Return the names under Arguments, or None without that section."""
    found = SECTION.search(docstring)
    if found is None:
        return None
    names = set()
    for entry in ENTRY.finditer(found["body"]):
        listed = entry["names"].split(",")
        names |= {name.strip().lstrip("*") for name in listed}
    return names


def test_every_public_name_has_a_docstring():
    seen, missing = 0, []
    for path in package_files():
        for name, node, _ in public_definitions(path):
            seen += 1
            if not ast.get_docstring(node):
                missing.append(name)
    assert seen > 100, f"only {seen} public names seen"
    assert not missing, "\n".join(missing)


def test_arguments_sections_name_the_parameters():
    seen, wrong = 0, []
    for path in package_files():
        for name, node, _ in public_definitions(path):
            listed = documented(ast.get_docstring(node) or "")
            if listed is None:
                continue
            seen += 1
            if isinstance(node, ast.ClassDef):
                known = class_parameters(node)
            else:
                known = parameters(node), parameters(node)
            if known is None:
                continue
            too_many, lacking = listed - known[0], known[1] - listed
            if too_many or lacking:
                wrong.append(
                    f"{name}: documents {sorted(too_many)} too many, "
                    f"lacks {sorted(lacking)}"
                )
    assert seen > 30, f"only {seen} Arguments sections seen"
    assert not wrong, "\n".join(wrong)


def test_the_reader_of_sections_reads():
    text = (
        "Do.\n\nArguments\n---------\na : int\n    Of all : of them.\n"
        "b, c : str\n    Two.\n*args, **kwargs\n    Rest.\n\n"
        "Returns\n-------\nint\n    x : y\n"
    )
    assert documented(text) == {"a", "b", "c", "args", "kwargs"}
    assert documented("Do.") is None
