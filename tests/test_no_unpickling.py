"""Nobody's code runs because somebody looked at a folder: nothing there is ever unpickled."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "prognosis_dask"
FILES = sorted(PACKAGE.rglob("*.py"))
#: A worker and its child speak through a pipe of their own.
PIPE = {PACKAGE / "execution" / "task.py", PACKAGE / "execution" / "child.py"}
#: Modules whose `load`, `loads` or `Unpickler` run what they read.
PICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch", "np", "numpy", "pd", "pandas"}


def unpickling(tree: ast.AST) -> list[str]:
    """The calls that may run code of the file that they read."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value).split(".")[-1], node.func.attr
        chosen = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        safe = chosen.get("weights_only") == "True" or (owner in ("np", "numpy") and "allow_pickle" not in chosen)
        if name == "read_pickle" or (name in ("load", "loads", "Unpickler") and owner in PICKLING and not safe):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_no_module_unpickles_a_file() -> None:
    calls = {str(path): unpickling(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES if path not in PIPE}
    assert not {path: found for path, found in calls.items() if found}


def test_the_check_sees_what_it_looks_for() -> None:
    text = "pickle.load(f); np.load(p, allow_pickle=True); torch.load(p); joblib.load(p); pd.read_pickle(p)"
    assert len(unpickling(ast.parse(text))) == 5
    assert not unpickling(ast.parse("np.load(p); torch.load(p, weights_only=True); json.load(f)"))
