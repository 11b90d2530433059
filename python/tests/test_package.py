"""The package as installed: what it carries, and processes that treat it badly."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from conftest import run_python

import kernelry
from kernelry._library import HERE, ffi

def copy_package(to: pathlib.Path) -> pathlib.Path:
    """A package that may be damaged; its libraries' folder is auditwheel's."""
    for folder in ("kernelry", "kernelry.libs"):
        if (HERE.parent / folder).exists():
            shutil.copytree(HERE.parent / folder, to / folder)
    return to / "kernelry"


LAYER = """
import numpy, kernelry
from kernelry import Layer, Linear, Registry, Weights
linear = Linear(in_features=256, out_features=512, group_size=32, x_type="f32")
packed = numpy.full((512, 32), 0x12345678, numpy.int32)
layer = Layer(linear, Weights.compressed_tensors(packed, numpy.ones((512, 8), numpy.float32)))
x = numpy.ones((64, 256), numpy.float32)
y = layer(x)
"""


def ended(done) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def has_size(name: str) -> bool:
    try:
        return ffi.sizeof(name) > 0
    except (ffi.error, ValueError):
        return False


def test_package_carries_types_and_command():
    assert (HERE / "py.typed").exists()
    done = subprocess.run([sys.executable, "-c", "from kernelry._command import main; main()",
                           ], capture_output=True, text=True, check=False)
    assert "Usage: kernelry" in done.stdout + done.stderr
    command = pathlib.Path(sys.executable).with_name("kernelry")
    done = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert f"kernelry {kernelry.__version__}" in done.stdout
    assert str(HERE / "lib" / "kernelry" / "plugins") in done.stdout


def test_declarations_have_the_headers_layout(tmp_path):
    """Each struct as a compiler lays it out, and as cffi does."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    names = [name for name in ffi.list_types()[0] if name.startswith("kry_") and has_size(name)
             and ffi.typeof(name).kind == "struct"]
    lines, expected = [], []
    for name in names:
        for field, place in ffi.typeof(name).fields:
            lines.append(f'printf("{name}.{field} %zu\\n", offsetof({name}, {field}));')
            expected.append(f"{name}.{field} {place.offset}")
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {ffi.sizeof(name)}")
    source = tmp_path / "layout.c"
    source.write_text("#include <kernelry/checkpoint.h>\n#include <stddef.h>\n#include <stdio.h>\n"
                      "int main(void) {" + "\n".join(lines) + "}\n")
    subprocess.run([compiler, f"-I{HERE / 'include'}", source, "-o", tmp_path / "layout"],
                   check=True)
    found = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True)
    assert len(names) > 10
    assert found.stdout.split("\n")[:-1] == expected


def test_fork_after_use_runs_in_the_child():
    ended(run_python(LAYER + """
import os
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if (layer(x) == y).all() and (Registry().devices()) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert (layer(x) == y).all()
"""))


def test_interpreter_ends_with_layers_alive():
    ended(run_python(LAYER + "keep = [layer, Registry()]; keep.append(keep)"))


def test_interpreter_ends_with_mapped_layers_alive_whose_file_is_gone(tmp_path):
    ended(run_python(LAYER + f"""
import os
path = {str(tmp_path / "layer.kry")!r}
layer.save(path, "ones")
mapped = Layer(linear)
mapped.map(path, "ones")
os.unlink(path)
assert (mapped(x) == y).all()
child = os.fork()
if child == 0:
    os._exit(0 if (mapped(x) == y).all() else 1)
assert os.waitpid(child, 0)[1] == 0
keep = [mapped, layer]; keep.append(keep)
"""))


def test_interpreter_ends_while_threads_apply():
    ended(run_python(LAYER + """
import threading, time
def work():
    while True:
        layer(x)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""))


def test_plugin_directory_that_vanished_is_told(tmp_path):
    copy = copy_package(tmp_path)
    ended(run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + LAYER + f"""
import shutil
assert kernelry.__file__.startswith({str(tmp_path)!r})
plugins = {str(copy)!r} + "/lib/kernelry/plugins"
shutil.rmtree(plugins)
assert (layer(x) == y).all()
assert Layer(linear).kernel.name == layer.kernel.name
try:
    Layer(linear, registry=Registry(environment=False))
except kernelry.NoKernelError as error:
    assert plugins in str(error) and "reinstall the package" in str(error), error
else:
    raise SystemExit("a layer without plugins")
"""))


def test_second_copy_of_the_library_in_the_process_is_refused(tmp_path):
    other = tmp_path / "libkernelry.so.0"
    shutil.copy(HERE / "lib" / "libkernelry.so.0", other)
    done = run_python(f"import ctypes; ctypes.CDLL({str(other)!r}); import kernelry")
    assert done.returncode == 1 and "ImportError" in done.stderr
    assert str(other) in done.stderr and "import kernelry first" in done.stderr


def test_first_copy_is_not_disturbed_by_a_second(tmp_path):
    other = tmp_path / "libkernelry.so.0"
    shutil.copy(HERE / "lib" / "libkernelry.so.0", other)
    ended(run_python(LAYER + f"""
import ctypes
ctypes.CDLL({str(other)!r})
assert (layer(x) == y).all()
"""))


def test_sources_that_were_not_built_say_so(tmp_path):
    copy = tmp_path / "kernelry"
    copy.mkdir()
    for file in HERE.glob("*.py"):
        if file.name != "_api.py":
            shutil.copy(file, copy)
    done = run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import kernelry")
    assert "ImportError: kernelry was not built" in done.stderr


def test_lack_of_cffi_is_named_as_such():
    done = run_python("import sys; sys.modules['_cffi_backend'] = None; import kernelry")
    assert "ImportError: kernelry needs _cffi_backend, which is not installed" in done.stderr


def test_library_that_is_missing_is_told(tmp_path):
    copy = copy_package(tmp_path)
    (copy / "lib" / "libkernelry.so.0").unlink()
    done = run_python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import kernelry")
    assert "ImportError: kernelry cannot load its library" in done.stderr
