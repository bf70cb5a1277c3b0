"""Sizes: a file fits a few screens, a function one, and so does the whole loop."""

import statistics

from tests.contract.source import Module, code_lines, functions, modules

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_LOOP_LINES = 70  # code lines: what a screen shows
THE_LOOP = ("run_epochs", "run_pass", "_train_batch", "_eval_batch", "run_region")


def too_long(module):
    """Files and functions over their budget; docstrings of functions are not counted."""
    found = []
    if len(module.text.splitlines()) > MAX_FILE_LINES:
        found.append(f"{module.path}: {len(module.text.splitlines())} lines")
    for name, node in functions(module.tree):
        lines = code_lines(node, module.text)
        if lines > MAX_FUNCTION_LINES:
            found.append(f"{module.path} {name}: {lines} lines")
    return found


def test_files_and_functions_keep_their_budget(capsys):
    sources = modules()
    table = sorted(((len(m.text.splitlines()), m.path) for m in sources), reverse=True)
    print(f"\n{len(table)} files, median {statistics.median(n for n, _ in table):.0f} lines")
    print("\n".join(f"{lines:5} {path}" for lines, path in table[:10]))
    assert [found for module in sources for found in too_long(module)] == []


def test_the_loop_is_one_screen():
    module = next(m for m in modules() if m.path == "fitkit/loop/runner.py")
    lengths = {
        name.split(".")[-1]: code_lines(node, module.text)
        for name, node in functions(module.tree)
        if name.split(".")[-1] in THE_LOOP
    }
    print(lengths)
    assert set(lengths) == set(THE_LOOP)
    assert sum(lengths.values()) <= MAX_LOOP_LINES


def test_a_long_file_and_a_long_function_are_seen():
    body = "    x = 1\n" * MAX_FUNCTION_LINES
    assert too_long(Module("fitkit/a.py", "x = 1\n" * (MAX_FILE_LINES + 1)))
    assert too_long(Module("fitkit/a.py", f"def f():\n{body}"))
    assert too_long(Module("fitkit/a.py", f"class A:\n    def f():\n{body.replace('  ', '    ')}"))
    docstring = "    more\n" * 50
    documented = f'def f():\n    """Long.\n{docstring}    """\n    return 1\n'
    assert too_long(Module("fitkit/a.py", documented)) == []
