#!/bin/sh
# Prints a Python that keras-xaic supports: python3 where it is one, else the first of the versions given (newest first by default).
# usage: find_python.sh [VERSION ...], e.g. find_python.sh 3.13 3.12
supported='import sys; sys.exit(not (3, 9) <= sys.version_info[:2] < (3, 14))'
candidates=""
[ $# -gt 0 ] || candidates="python3"
for version in ${*:-3.13 3.12 3.11 3.10 3.9}; do
  candidates="$candidates python$version $(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python 2>/dev/null | tail -n 1)"
done
for python in $candidates; do
  if "$python" -c "$supported" 2>/dev/null; then
    echo "$python"
    exit 0
  fi
done
[ $# -gt 0 ] || echo python3 # make_env.sh says what is wrong with it
