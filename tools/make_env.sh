#!/bin/sh
# Makes the environment with everything in it; usage: make_env.sh PYTHON VENV
set -eu
python=$1 venv=$2
version=$("$python" --version 2>&1) || version="no Python called $python"
if ! "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
  echo "keras-xaic needs Python 3.9, 3.10, 3.11, 3.12 or 3.13; found $version. Try: make PYTHON=/path/to/python3.13"
  exit 1
fi
if [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" --version 2>&1)" != "$version" ]; then
  [ -f "$venv/pyvenv.cfg" ] || { echo "$venv is no virtual environment; move it away first"; exit 1; }
  rm -rf "$venv" # ours, of another Python
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "Installing into $venv/ ($version) ..."
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip -e '.[dev,docs,micro,npu,search,cluster,boards]'
# iNNvestigate's metadata names Python < 3.12 and older packages; its rules work with what is installed here.
"$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' && pip --no-deps --ignore-requires-python 'innvestigate>=2.1.2,<2.2' || true
"$venv/bin/python" --version > "$venv/.ready"
