"""Who may know whom, read off the import statements."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each room may import the rooms below it, and itself.
BELOW = {
    "common": set[str](),
    "processors": {"common"},
    "models": {"common"},
    "callbacks": {"common"},
    "analysis": {"common", "processors"},
    "tools": {"common", "processors", "models", "callbacks", "analysis"},
    "analysis/report": {"common", "processors", "models", "callbacks", "analysis", "tools"},
    "inference": {"common", "processors", "models", "analysis", "tools"},
    "lightning_runs": {"common", "processors", "models", "callbacks", "analysis", "tools"},
}
PORTABLE = ROOT / "models" / "crf"  # copied into other projects, under any name
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
SOURCES = sorted(
    path
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] != "outputs" and not path.relative_to(ROOT).parts[0].startswith(".")
)


def imported_modules(path: Path) -> set[str]:
    """The full names of all modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = full_name(node, path)
            found |= {f"{module}.{alias.name}" for alias in node.names}
            if node.module is not None:  # `from . import name` asks for a sibling, not for the package
                found.add(module)
    return found


def full_name(node: ast.ImportFrom, path: Path) -> str:
    """What a statement imports from; it may be relative within the CRF alone."""
    if node.level == 0:
        assert node.module is not None
        return node.module
    package = path.parents[node.level - 1]
    assert package.is_relative_to(PORTABLE), f"{path}: a relative import"
    return ".".join((*package.relative_to(ROOT).parts, *filter(None, [node.module])))


def first_parts(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("import a.b as c\ndef f():\n    from d import e\n")
    assert imported_modules(source) == {"a.b", "d", "d.e"}


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    inner = [ROOT / other for other in BELOW if other.startswith(f"{room}/")]
    sources = [path for path in sorted((ROOT / room).rglob("*.py")) if not set(inner) & set(path.parents)]
    assert sources
    above = {other for other in BELOW if "/" not in other} - BELOW[room] - {room.partition("/")[0]}
    for path in sources:
        assert not first_parts(imported_modules(path)) & above, name_of(path)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    sources = [path for path in SOURCES if name_of(path).split("/")[0] in BELOW]
    modules = {name_of(path)[:-3].removesuffix("/__init__").replace("/", "."): path for path in sources}
    unread = {module: imported_modules(path) & modules.keys() - {module} for module, path in modules.items()}
    while unread:
        free = {module for module, imported in unread.items() if not imported & unread.keys()}
        assert free, f"modules that import each other: {', '.join(sorted(unread))}"
        unread = {module: imported for module, imported in unread.items() if module not in free}


def test_the_crf_imports_itself_relatively_alone() -> None:
    for path in PORTABLE.rglob("*.py"):
        statements = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        for node in statements:
            assert node.level or not full_name(node, path).startswith("models"), name_of(path)


def test_nothing_imports_a_script() -> None:
    assert {"run_ner_crf", "run_ner_softmax"} <= SCRIPTS
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != "tests":  # tests call the scripts as users do
            assert not first_parts(imported_modules(path)) & SCRIPTS, name_of(path)


def test_processors_never_see_a_model_class() -> None:
    for path in (ROOT / "processors").rglob("*.py"):
        names = {module.rpartition(".")[2] for module in imported_modules(path)}
        assert not {name for name in names if name.startswith("AutoModel") or name == "nn"}, name_of(path)


def test_models_never_see_a_file_a_tokenizer_or_arguments() -> None:
    for path in (ROOT / "models").rglob("*.py"):
        imported = imported_modules(path)
        compiles = "cpu" in path.parts or path.name == "setup.py"  # keep a compiled library on disk
        assert not first_parts(imported) & {"argparse", "json", "tokenizers"}, name_of(path)
        assert compiles or "pathlib" not in first_parts(imported), name_of(path)
        assert not {module for module in imported if "Tokenizer" in module}, name_of(path)


def test_only_the_lightning_scripts_import_lightning() -> None:
    known = [path for path in SOURCES if {"lightning", "pytorch_lightning"} & first_parts(imported_modules(path))]
    rooms = {path.relative_to(ROOT).parts[0] for path in known}
    assert rooms - {"tests"} == {"lightning_runs"}
    loaded = "import sys, run_ner_crf, run_ner_softmax; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=False).returncode == 0


def test_data_sets_do_not_hide_the_hugging_face_package() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists()
    spec = find_spec("datasets")
    assert spec is not None
    assert spec.origin is not None
    assert "site-packages" in Path(spec.origin).parts


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_stays_under_400_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_tests_are_found_by_their_path_alone() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
