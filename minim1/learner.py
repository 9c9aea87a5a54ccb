"""What did the learner write? Reads functions out of notebooks without running the notebooks.

Of the code cells only top-level imports, definitions of functions and classes, and assignments of literal constants
are executed, in their order; of several definitions of a name the last one counts. The rest of a notebook (experiments,
figures, checks) is passed over.

Whoever reads a stranger's notebook thus runs its code, with all rights of the reader: that is what it is for, and a
container is the place for it. Nothing else in the file acts: metadata, ids, outputs and attachments are not looked at.
"""

import ast
import errno
import inspect
import json
import linecache
import os
import re
import stat
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from minim1.errors import UserError

MAGIC = re.compile(r"\s*([%!?]|\w[\w., ]*=\s*[%!])|.*\?\s*$")  # a line that is IPython's, not Python's
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MOST_BYTES = 16_000_000  # of a notebook, most of it outputs
MOST_CODE = 500_000  # characters; our longest notebook has 19,000
MOST_MAGICS = 100  # lines of IPython's in a cell
DEEPEST = 100  # levels of syntax; ast.unparse takes five frames for one
SCOPES = (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def functions(notebook: str | Path | dict) -> dict[str, Callable]:
    """The functions that a notebook defines, by name. Raises: UserError where it is no notebook.

    Args: notebook: a file, or what one holds, as a dict.

    >>> functions("work/04_lightning_attention.ipynb")["inter_block"](q, state, slopes)         # doctest: +SKIP
    """
    return Notebook(notebook).functions()


def notebooks(folder: str | Path = "work/") -> list["Notebook"]:
    """The notebooks of a learner's folder in the order of their names.

    Names with anything but letters, digits and `_` are copies (of `lab --reset`, of JupyterLab), and are left out.
    Raises: UserError where there is no such folder, or what is no notebook in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; `python3 go.py lab` makes work/, the folder of your notebooks")
    return [Notebook(path) for path in sorted(folder.glob("*.ipynb")) if re.fullmatch(r"\w+", path.stem)]


def is_stub(function: Callable | str) -> bool:
    """Whether a function (or the source of one) still comes to its `raise NotImplementedError(...)`.

    >>> is_stub("def f(x):\\n    raise NotImplementedError('exercise 4.2')")
    True
    """
    try:
        tree = ast.parse(textwrap.dedent(function if isinstance(function, str) else inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # no source, as of a built-in function
        return False
    return bool(tree.body) and _unwritten(tree.body[0])


def origin(function: Callable) -> str:
    """Whose a function is: "work/04_lightning_attention.ipynb, cell 12", or the module that defines it."""
    function = inspect.unwrap(function)
    if isinstance(getattr(function, "__globals__", None), Namespace):
        return function.__code__.co_filename
    return getattr(function, "__module__", None) or type(function).__module__


def printable(text: str) -> str:
    r"""On one line, with what a terminal would obey or cannot show as Python spells it.

    >>> print(printable("a\x1b[2J\nb"))
    a\x1b[2J\nb
    """
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


@dataclass(frozen=True)
class Cell:
    """A code cell: its number counts all cells from 1; `label` is the file name that tracebacks show."""

    number: int
    label: str
    text: str
    tree: ast.Module | None
    problem: str = ""


@dataclass(frozen=True)
class Statement:
    """A top-level statement and the names it binds; `read` says whether it is executed."""

    names: frozenset[str]
    node: ast.stmt
    cell: Cell
    read: bool

    @property
    def function(self) -> bool:
        value = getattr(self.node, "value", None)
        return isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef)) or isinstance(value, ast.Lambda)


class Namespace(dict):
    """The globals of a learner's functions; says of a name that is not there why it is not."""

    def __init__(self, **names) -> None:
        super().__init__(**names)
        self.missing: dict[str, str] = {}

    def __missing__(self, name: str):
        if name in self.missing:
            raise NameError(self.missing[name], name=name)
        raise KeyError(name)  # a builtin, or unknown


class Notebook:
    """What a notebook defines, parsed but not run; `functions` and `function` run the definitions.

    Args: notebook: a file, or what one holds, as a dict.
    Raises: UserError where it is no notebook. A cell that does not parse is a sentence in `problems`.
    """

    def __init__(self, notebook: str | Path | dict) -> None:
        self.path = Path("notebook" if isinstance(notebook, dict) else notebook)
        self.label, content = "notebook", notebook
        if not isinstance(notebook, dict):
            self.label = printable(f"{self.path.absolute().parent.name}/{self.path.name}")
            content = _load(self.path)
        self.cells = [
            _parse(number, f"{self.label}, cell {number}", text)
            for number, text in enumerate(_sources(content, self.path), 1) if text is not None
        ]
        self.statements = [_statement(node, cell) for cell in self.cells if cell.tree for node in cell.tree.body]
        self.binding: dict[str, list[Statement]] = {}
        for statement in self.statements:
            for name in statement.names:
                self.binding.setdefault(name, []).append(statement)

    @property
    def problems(self) -> list[str]:
        return [cell.problem for cell in self.cells if cell.problem]

    @property
    def text(self) -> str:
        """All code, with the numbers of its cells."""
        return "\n".join(f"# {cell.label}\n{cell.text}" for cell in self.cells)

    def definition(self, name: str) -> Statement | None:
        """The last function of this name. Raises: UserError where a later cell that defines it does not parse."""
        found = [s for s in self.binding.get(name, ()) if s.function]
        last = found[-1].cell.number if found else 0
        for cell in self.cells:
            if cell.problem and cell.number > last and re.search(rf"\bdef\s+{re.escape(name)}\b", cell.text):
                raise UserError(cell.problem)
        return found[-1] if found else None

    def written(self, name: str) -> bool:
        """Whether the notebook defines a function of this name that is no stub. Raises: as `definition`."""
        found = self.definition(name)
        return found is not None and not _unwritten(found.node)

    def where(self, name: str) -> str:
        """ "work/04_lightning_attention.ipynb, cell 12, line 1", as of a function's code; "" if it is not defined."""
        found = self.definition(name)
        if found is None:
            return ""
        lines = [found.node, *getattr(found.node, "decorator_list", [])]
        return f"{found.cell.label}, line {min(node.lineno for node in lines)}"

    def source(self, name: str) -> str:
        """A function and all that it uses in the notebook, without comments: what its results depend on."""
        used = self._used(name, _mentioned) | {"*"}
        return "\n".join(
            ast.unparse(s.node) if s.read else f"{min(s.names & used)} = ..." for s in self.statements if s.names & used
        )

    def unwritten(self, name: str) -> list[str]:
        """The stubs of the notebook that a function calls, itself or through others. Raises: as `definition`."""
        used = {name: self.definition(name) for name in sorted(self._used(name, _globals))}
        return [name for name, found in used.items() if found is not None and _unwritten(found.node)]

    def _used(self, name: str, names_of: Callable[[ast.stmt], set[str]]) -> set[str]:
        """A name and those that it takes, itself or through others, in definitions of the notebook."""
        wanted, seen = [name], set()
        while wanted:
            if (this := wanted.pop()) not in seen:
                seen.add(this)
                for statement in self.binding.get(this, ()):
                    wanted += names_of(statement.node) if statement.read else ()
        return seen

    def functions(self) -> dict[str, Callable]:
        """Execute what is read and return the functions by name."""
        return self._functions(self._run())

    def function(self, name: str) -> Callable:
        """One function. Raises: UserError where there is none, saying why."""
        self.definition(name)  # a cell that does not parse may hide it
        names = self._run()
        if (found := self._functions(names).get(name)) is not None:
            return found
        none = f"{self.label} defines no function {name!r}; expected `def {name}(...)` at the start of a line"
        raise UserError(names.missing.get(name, none))

    def _functions(self, names: Namespace) -> dict[str, Callable]:
        defined = {name for statement in self.statements if statement.function for name in statement.names}
        return {name: names[name] for name in sorted(defined) if callable(names.get(name))}

    def _run(self) -> Namespace:
        names = Namespace(__name__=self.path.stem)
        for cell in self.cells:  # a size and no time: linecache then never looks for such a file
            linecache.cache[cell.label] = (len(cell.text), None, cell.text.splitlines(keepends=True), cell.label)
        for statement in self.statements:
            if statement.read:
                _execute(statement, names)
            else:
                _pass_over(statement, names)
        return names


def _execute(statement: Statement, names: Namespace) -> None:
    try:
        exec(compile(ast.Module([statement.node], []), statement.cell.label, "exec", dont_inherit=True), names)
    except (Exception, SystemExit) as error:
        said = printable(f"{type(error).__name__}: {error}".splitlines()[0])
        for name in statement.names:
            names.pop(name, None)
            names.missing[name] = f"`{name}` is not there, since {statement.cell.label} failed ({said})"


def _pass_over(statement: Statement, names: Namespace) -> None:
    """What is computed is not known, also where the name was a constant before; a function stays what it was."""
    for name in statement.names:
        if not callable(names.get(name)):
            names.pop(name, None)
        names.missing[name] = (
            f"`{name}` is computed in cell {statement.cell.number}, but only imports, definitions and literal "
            "constants are read from a notebook: make it an argument, or compute it inside"
        )


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file that somebody else may have put there.

    Raises: OSError, also where it is no file (a FIFO would be waited for, a device never end), has more than `most`
        bytes, or is a link that leads out of its folder.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no file")
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, and at most {most:,} are read")
    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(path.parent):
        raise OSError(errno.ELOOP, "it is a link that leads out of its folder")
    return path.read_bytes()


def _load(path: Path) -> dict:
    name = printable(str(path))
    try:
        return json.loads(read_file(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); expected a notebook") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a notebook ({error}); restore it, or remove it") from None


def _sources(content: dict, path: Path) -> list[str | None]:
    """The text of each code cell; None for the other cells."""
    name = printable(str(path))
    try:
        texts = ["".join(cell["source"]) if cell["cell_type"] == "code" else None for cell in content["cells"]]
    except (KeyError, TypeError):
        raise UserError(f"{name} is not a notebook (it has no list of cells); restore it, or remove it") from None
    if (size := sum(len(text) for text in texts if text)) > MOST_CODE:
        raise UserError(f"{name} has {size:,} characters of code, and at most {MOST_CODE:,} are read; move data to a file")
    return texts


def _parse(number: int, label: str, text: str) -> Cell:
    """Parse a cell; lines that are IPython's become `pass`, one by one, where Python stumbles over them."""
    lines = text.split("\n")
    foreign = text.lstrip().startswith("%%")  # %%time is followed by Python, %%html is not: no mistake then
    for _ in range(min(len(lines), MOST_MAGICS) + 1):
        try:
            tree = ast.parse("\n".join(lines))
            if _depth(tree) > DEEPEST:
                raise RecursionError
            return Cell(number, label, "\n".join(lines), tree)
        except (RecursionError, MemoryError):  # of the parser: in some versions the one, in some the other
            line, reason = 1, "it is nested too deeply"
        except (SyntaxError, ValueError) as error:  # ValueError: a null character, half of a surrogate pair
            line = getattr(error, "lineno", None) or 1
            reason = getattr(error, "msg", None) or str(error)
        if not (line <= len(lines) and MAGIC.match(lines[line - 1])):
            break
        lines[line - 1] = re.match(r"\s*", lines[line - 1])[0] + "pass"
    problem = f"{label} does not parse (line {line}: {reason}), so nothing in it counts; mend it and save the notebook"
    return Cell(number, label, text, None, "" if foreign else problem)


def _depth(tree: ast.AST) -> int:
    """Levels of syntax; without recursion, which the rest of this module relies on."""
    level, nodes = 0, [tree]
    while nodes:
        level, nodes = level + 1, [child for node in nodes for child in ast.iter_child_nodes(node)]
    return level


def _statement(node: ast.stmt, cell: Cell) -> Statement:
    if isinstance(node, DEFINITIONS):
        return Statement(frozenset([node.name]), node, cell, True)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [alias.asname or alias.name.split(".")[0] for alias in node.names]
        return Statement(frozenset(names), node, cell, True)
    return Statement(frozenset(_assigned(node)), node, cell, _constant(node))


def _constant(node: ast.stmt) -> bool:
    """Whether a statement gives names to a literal (or to a lambda, which is a function)."""
    if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if not all(isinstance(target, (ast.Name, ast.Tuple, ast.List)) for target in targets):
        return False
    if isinstance(node.value, ast.Lambda):
        return all(isinstance(target, ast.Name) for target in targets)
    try:
        ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _assigned(node: ast.AST):
    """The names that a statement binds in the notebook's own scope."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if not isinstance(node, SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _assigned(child)


def _mentioned(node: ast.stmt) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _globals(node: ast.stmt) -> set[str]:
    """The names that a definition takes from outside."""
    own = {child.arg for child in ast.walk(node) if isinstance(child, ast.arg)}
    own |= {child.id for child in ast.walk(node) if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)}
    return _mentioned(node) - own


def _unwritten(node: ast.stmt) -> bool:
    """Whether running the function comes to a top-level `raise NotImplementedError`; one behind a `return` is dead."""
    for statement in node.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else []:
        if isinstance(statement, ast.Return):
            return False
        if isinstance(statement, ast.Raise) and statement.exc is not None:
            raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
            if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
                return True
    return False
