#!/bin/sh
# Prints a Python that can run the panel's client: 3.12 or newer, with what a virtual environment needs. Prints nothing when
# there is none. Looks on PATH and among pyenv's versions; a shim of pyenv may be on PATH and still run nothing.

fits() {
	"$1" -c 'import sys, ssl, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info < (4,))' >/dev/null 2>&1
}

for name in python3.13 python3.12 python3.14 python3; do
	# All of that name on PATH, not only the first, which may be a shim.
	old_ifs=$IFS
	IFS=:
	for folder in $PATH; do
		if [ -x "$folder/$name" ] && fits "$folder/$name"; then
			echo "$folder/$name"
			exit 0
		fi
	done
	IFS=$old_ifs
done

for root in "$PYENV_ROOT" "$(pyenv root 2>/dev/null)" "$HOME/.pyenv"; do
	[ -n "$root" ] || continue
	for python in "$root"/versions/3.13*/bin/python3 "$root"/versions/3.12*/bin/python3 "$root"/versions/*/bin/python3; do
		if [ -x "$python" ] && fits "$python"; then
			echo "$python"
			exit 0
		fi
	done
done
