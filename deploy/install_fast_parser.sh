#!/bin/sh
# Install gunicorn_h1c, the fast parser of HTTP requests, where it can be built. Usage: install_fast_parser.sh PYTHON
# It has no wheels, so it needs a C compiler and Python's headers. Without them the node works all the same, a little slower.
python=$1
compiler=${CC:-cc}
if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
    echo "no C compiler ($compiler): the node will use Gunicorn's own HTTP parser, which is slower"
    exit 0
fi
output=$("$python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --no-deps \
    -r "$(dirname "$0")/../requirements-fast.lock" 2>&1) && exit 0
printf '%s\n' "$output" | tail -n 3
echo "the fast HTTP parser could not be built: the node will use Gunicorn's own, which is slower"
