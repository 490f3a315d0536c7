#!/bin/sh
# Installs syncect of a source tree into a folder of its own: install.sh SOURCE PREFIX WORK
#   SOURCE  the source tree; nothing is written into it
#   PREFIX  the installation, a virtual environment without pip; PREFIX/bin/syncect is the command
#   WORK    a folder for what only the installation needs: the build tools and the wheel; remove it afterwards
# The environment may name PYTHON (default: python3) and TORCH_INDEX, where torch comes from: for a machine without a
# GPU https://download.pytorch.org/whl/cpu; "" takes it from where all other packages come, which for PyPI brings CUDA.
set -eu
umask 022
if [ $# -ne 3 ]; then
    echo "usage: install.sh SOURCE PREFIX WORK" >&2
    exit 2
fi
source=$(cd "$1" && pwd)
prefix=$2
work=$3
python=${PYTHON:-python3}

echo "syncect: building the wheel"
"$python" -m venv "$work/build"
# The locked pip comes first: an older one takes no hashes from a constraint.
sed -n '/^pip==/,/[^\\]$/p' "$source/constraints.txt" >"$work/pip.txt"
"$work/build/bin/python" -m pip install --quiet --require-hashes --requirement "$work/pip.txt"
"$work/build/bin/python" -m pip install --quiet --require-hashes --constraint "$source/constraints.txt" hatchling
(cd "$source" && "$work/build/bin/python" -m hatchling build --target wheel --directory "$work/dist")
wheel=$(echo "$work"/dist/*.whl)

# The build tools stay outside: the pip of the first environment installs into the second.
install() {
    "$work/build/bin/python" -m pip --python "$prefix/bin/python" install --quiet "$@"
}
"$python" -m venv --without-pip "$prefix"
torch=$(grep '^torch==' "$source/torch.txt")  # by its version alone: its wheel is one of several
if [ -n "${TORCH_INDEX:-}" ]; then
    echo "syncect: installing torch from $TORCH_INDEX"
    install --no-deps --index-url "$TORCH_INDEX" "$torch"
else
    install "$torch"
fi
echo "syncect: installing the packages of constraints.txt, each with its hash"
hash=$(sha256sum "$wheel" | cut -d ' ' -f 1)
echo "syncect[dicomweb,objects,postgres,ray] @ file://$wheel --hash=sha256:$hash" >"$work/wheel.txt"
install --require-hashes --constraint "$source/constraints.txt" --requirement "$work/wheel.txt"
install --no-deps --force-reinstall "$wheel"  # pip keeps an older build of the same version otherwise
"$prefix/bin/syncect" models verify demo
echo "syncect: installed in $prefix"
