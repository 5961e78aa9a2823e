#!/bin/sh
# Put pgnode on this machine: the node in /opt/pgnode, a user, a systemd unit, first settings in /etc/pgnode.env.
# The command is /usr/local/bin/pgnode, with its manual and completion for shells.
# Run it again to upgrade: settings stay as they are, and a running node takes the new version without disconnecting anybody.
set -eu

usage() {
    cat <<'END'
usage: install.sh [--python PYTHON] [--prefix FOLDER] [--no-systemd] [--no-start] [--sysctl]

  --python PYTHON   the Python to use, 3.11 or newer
  --prefix FOLDER   put everything below this folder, make no user and start nothing
  --no-systemd      no unit, no user
  --no-start        enable the unit, but do not start it
  --sysctl          take the kernel settings for many users, too (systemd/60-pgnode.sysctl.conf)

From an offline bundle nothing is downloaded; from a checkout the dependencies come from PyPI, with the hashes of requirements.lock.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

python='' prefix='' systemd=1 start=1 sysctl=0
while [ $# -gt 0 ]; do
    case $1 in
        --python) [ $# -gt 1 ] || fail "--python needs a value"; python=$2; shift ;;
        --prefix) [ $# -gt 1 ] || fail "--prefix needs a value"; prefix=${2%/}; shift ;;
        --no-systemd) systemd=0 ;;
        --no-start) start=0 ;;
        --sysctl) sysctl=1 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option $1" ;;
    esac
    shift
done

here=$(cd "$(dirname "$0")" && pwd)
home=$prefix/opt/pgnode
settings=$prefix/etc/pgnode.env
[ "$(uname -s)" = Linux ] || fail "pgnode runs on Linux alone"
if [ -z "$prefix" ]; then
    [ "$(id -u)" = 0 ] || fail "run it as root, or with --prefix FOLDER"
else
    case $prefix in /*) ;; *) fail "--prefix needs an absolute path" ;; esac
    start=0 sysctl=0
fi

# --- the node -----------------------------------------------------------------------------------------------------------

fits() { "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
if [ -z "$python" ]; then
    # What is there already stays: an upgrade of pgnode is none of Python.
    for candidate in "$home/bin/python" python3.13 python3.12 python3.11 python3; do
        if fits "$candidate"; then python=$candidate; break; fi
    done
    [ -n "$python" ] || fail "no Python 3.11 or newer with venv was found; install one (Debian: python3-venv), or name it: --python"
fi
fits "$python" || fail "$python is no Python 3.11 or newer with venv (Debian: python3-venv)"
if [ "$systemd" = 1 ] && [ -z "$prefix" ]; then
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /home/* | /root/*) fail "$python is in a home folder, which the service cannot see: name another one, --python" ;;
    esac
fi

fresh=0
if ! fits "$home/bin/python"; then
    say "making $home with $("$python" --version)"
    mkdir -p "$(dirname "$home")"
    "$python" -m venv "$home"
    fresh=1
fi
pip() { "$home/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
if [ -d "$here/wheels" ]; then
    if command -v sha256sum >/dev/null 2>&1; then
        (cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "the bundle is damaged: get it again"
    fi
    say "installing from the bundle"
    pip install --no-index --find-links "$here/wheels" --require-hashes --no-deps -r "$here/requirements.txt" \
        || fail "this bundle is for another Python or machine, see its name; the Python here is $("$home/bin/python" --version)"
    # The version that is there may have the same number and be built from something else.
    pip install --no-index --no-deps --force-reinstall "$here"/wheels/pgnode-*.whl
else
    source=$(dirname "$here")
    [ -f "$source/requirements.lock" ] || fail "neither wheels/ beside this script nor a checkout around it"
    say "installing from $source and PyPI"
    pip install --require-hashes -r "$source/requirements.lock"
    sh "$here/install_fast_parser.sh" "$home/bin/python"
    # A copy: what an earlier build left in the checkout would come along.
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    cp -R "$source/pgnode" "$source/pyproject.toml" "$source/README.md" "$source/LICENSE" "$copy"
    pip install --no-deps --no-build-isolation --force-reinstall "$copy"
fi
# The unit's user may not write here.
"$home/bin/python" -m compileall -q "$home/lib" || true
say "installed: $("$home/bin/pgnode" --version)"

# --- the command for everybody: on PATH, with its manual, and completed by shells ------------------------------------------

mkdir -p "$prefix/usr/local/bin"
command=$prefix/usr/local/bin/pgnode
if [ -e "$command" ] && [ "$(readlink "$command")" != "$home/bin/pgnode" ]; then
    say "$command is something else and stays as it is: the node's command is $home/bin/pgnode"
else
    ln -sfn "$home/bin/pgnode" "$command"
    share=$prefix/usr/local/share
    if [ -f "$home/share/man/man1/pgnode.1" ]; then
        mkdir -p "$share/man/man1"
        install -m 0644 "$home/share/man/man1/pgnode.1" "$share/man/man1/pgnode.1"
    fi
    teach() { # SHELL FILE: the script where that shell looks for one by the command's name
        mkdir -p "$(dirname "$2")"
        "$home/bin/pgnode" completion "$1" >"$2.new" && mv "$2.new" "$2"
    }
    teach bash "$share/bash-completion/completions/pgnode"
    teach zsh "$share/zsh/site-functions/_pgnode"
    # Of the folders of all users fish looks only into its own and into this one.
    teach fish "$prefix/etc/fish/completions/pgnode.fish"
    say "the command is $command; man pgnode, and completion in new bash (with bash-completion), zsh and fish shells"
fi

# --- user, settings, unit -----------------------------------------------------------------------------------------------

put() { # SOURCE TARGET: a file of the project's own, which an upgrade brings anew
    mkdir -p "$(dirname "$prefix$2")"
    install -m 0644 "$here/$1" "$prefix$2"
}

if [ "$systemd" = 1 ]; then
    if [ -z "$prefix" ] && ! id pgnode >/dev/null 2>&1; then
        say "making the user pgnode"
        useradd --system --user-group --home-dir /var/lib/pgnode --shell /usr/sbin/nologin pgnode
    fi
    put systemd/pgnode.service /etc/systemd/system/pgnode.service
    put systemd/pgnode@.service /etc/systemd/system/pgnode@.service
    put systemd/pgnode-worker@.service /etc/systemd/system/pgnode-worker@.service
    put systemd/pgnode.sysusers.conf /etc/sysusers.d/pgnode.conf
    put systemd/pgnode.tmpfiles.conf /etc/tmpfiles.d/pgnode.conf
    if [ -d "$prefix/etc/logrotate.d" ]; then put systemd/pgnode.logrotate /etc/logrotate.d/pgnode; fi
fi
if [ "$sysctl" = 1 ]; then
    put systemd/60-pgnode.sysctl.conf /etc/sysctl.d/60-pgnode.conf
    sysctl -q -p /etc/sysctl.d/60-pgnode.conf || say "some kernel settings were not taken"
fi
if [ -e "$settings" ]; then
    say "$settings stays as it is"
else
    mkdir -p "$(dirname "$settings")"
    (umask 027 && cat "$here/pgnode.env.example" >"$settings")
    say "$settings has first settings"
fi
if [ -z "$prefix" ] && id pgnode >/dev/null 2>&1; then chown root:pgnode "$settings"; chmod 0640 "$settings"; fi

# --- start --------------------------------------------------------------------------------------------------------------

running=0
if [ "$systemd" = 1 ] && [ -z "$prefix" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl --quiet enable pgnode
    if systemctl --quiet is-active pgnode && [ "$fresh" = 0 ]; then
        say "the running node takes the new version; nobody is disconnected"
        "$home/bin/pgnode" restart --env-file "$settings"
        running=1
    elif [ "$start" = 1 ]; then
        systemctl start pgnode
        tries=60
        until "$home/bin/pgnode" health --ready --quiet --env-file "$settings"; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || fail "the node is not ready after a minute: journalctl -u pgnode"
            sleep 1
        done
        running=1
    fi
fi

# --- what a panel needs -------------------------------------------------------------------------------------------------

if [ "$running" = 1 ]; then
    say ""
    say "For the panel:"
    "$home/bin/python" - "$settings" <<'END'
import sys
from pathlib import Path

from pgnode.settings import load_from, read_api_key

settings = load_from(Path(sys.argv[1]))
ports = {"rest": "REST", "both": f"REST; gRPC on {settings.grpc_port}", "grpc": "gRPC", "none": "of its workers"}[settings.service_protocol]
print(f"  port      {settings.service_port} ({ports})")
print(f"  API port  {settings.api_port}")
print(f"  API key   {read_api_key(settings)}")
print(f"  certificate, {settings.cert_file}:")
print(settings.cert_file.read_text())
END
    addresses=$(hostname -I 2>/dev/null || true)
    say "  address   ${addresses:+one of: }${addresses:-none yet that others could reach}"
else
    say ""
    say "Next: look at $settings, then start the node:"
    if [ "$systemd" = 1 ]; then
        say "  systemctl enable --now pgnode"
    else
        say "  $home/bin/pgnode run --env-file $settings"
    fi
    say "For the panel: port 62050 (gRPC 62052), API port 62051; key and certificate are api_key and tls/cert.pem in STATE_DIR"
    say "after the first start (/var/lib/pgnode by the settings above)."
fi
