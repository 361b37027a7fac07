#!/usr/bin/env bash
# Brings wheels to a machine without a network, in pieces. See README.md beside this file.
#   parts.sh split WHEELS PARTS     here: WHEELS (a folder) into PARTS/part00, part01, … of at most 52 MiB
#   parts.sh collect PART           there, once a piece: keep it
#   parts.sh install SITE           there, at the end: join, check and install into the folder SITE
set -euo pipefail
kept=/opt/freshvec-parts
case $1 in
  split)
    mkdir -p "$3"
    (cd "$2" && sha256sum -- *.whl) >"$3/SHA256SUMS"
    tar -C "$2" -cf - . | split -b 52M -d - "$3/part"
    ;;
  collect)
    mkdir -p "$kept"
    cp "$2"/* "$kept/"
    ls -l "$kept"
    ;;
  install)
    mkdir -p "$kept/wheels"
    cat "$kept"/part* | tar -C "$kept/wheels" -xf -
    (cd "$kept/wheels" && sha256sum --quiet -c "$kept/SHA256SUMS")
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
      --target "$2" "$kept"/wheels/*.whl
    rm -rf "$kept"
    ;;
esac
