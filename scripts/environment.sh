# Sourced by the other scripts: a Python environment with what the given requirements file names.
#
#   source scripts/environment.sh requirements.txt
#
# An active virtual environment (or conda environment) is used as it is; without one, .venv is made. Packages are
# installed when the file has changed since the last time. SKIP_INSTALL=1 leaves the environment alone.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

prepare_environment() {
    local requirements="$ROOT/$1"
    if [[ -z "${VIRTUAL_ENV:-}" && -z "${CONDA_PREFIX:-}" ]]; then
        [[ -d "$ROOT/.venv" ]] || "${PYTHON:-python3}" -m venv "$ROOT/.venv"
        local activate="$ROOT/.venv/bin/activate"
        [[ -f "$activate" ]] || activate="$ROOT/.venv/Scripts/activate" # Windows
        # shellcheck disable=SC1090
        source "$activate"
    fi
    if ! python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "Python 3.11 or newer is needed, this is $(python --version); name another with PYTHON=..." >&2
        exit 1
    fi
    [[ -n "${SKIP_INSTALL:-}" ]] && return
    local installed="${VIRTUAL_ENV:-${CONDA_PREFIX}}/.bert-crf-$1"
    if ! cat "$ROOT"/requirements*.txt | cmp -s - "$installed"; then
        echo "Installing $1 into ${VIRTUAL_ENV:-${CONDA_PREFIX}} (once, some minutes)"
        python -m pip install --quiet --disable-pip-version-check -r "$requirements"
        cat "$ROOT"/requirements*.txt > "$installed"
    fi
}

prepare_environment "${1:-requirements.txt}"
