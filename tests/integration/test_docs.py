"""The documents' snippets run, and their claims about files and start-up hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_a_readme_snippet_runs(snippet, capsys):
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda file: file.name)
def test_an_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_readme_starts_with_the_two_commands():
    lines = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    ")]
    assert lines[:2] == ["make demo", "make test"]


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_architecture_lists_every_source_file_as_its_docstring_says():
    command = [sys.executable, str(ROOT / "docs/files.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_search_is_quick_and_loads_no_backend():
    code = "import sys, time; t = time.perf_counter(); import search; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3
    heavy = "{'torch', 'transformers', 'numpy', 'scipy', 'pydantic'}"
    assert python(f"import sys, search; print(sorted({heavy} & sys.modules.keys()))").strip() == "[]"


def test_help_is_quick():
    code = (
        "import subprocess, sys, time; t = time.perf_counter();"
        "subprocess.run([sys.executable, '-m', 'search.cli', '--help'], capture_output=True, check=True);"
        "print(time.perf_counter() - t)"
    )
    assert min(float(python(code)) for _ in range(3)) < 0.5
    loaded = "import sys\nfrom search.cli.main import cli\ncli.main(['--help'], standalone_mode=False)\n"
    assert python(loaded + "print('torch' in sys.modules)").splitlines()[-1] == "False"
