#!/bin/sh
# Builds libstretchysnake.so beside its sources for work on the kernels, without CMake.
set -eu
cd "$(dirname "$0")"
flags="-std=c++17 -O3 -fPIC -fno-math-errno -fvisibility=hidden -Wall -Wextra -Wno-psabi"
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
for kernel in selective_scan_forward selective_scan_backward causal_conv add_rms_norm; do
    ${CXX:-g++} $flags -DKERNEL_NAMESPACE=baseline -DVECTOR_BYTES=16 -c $kernel.cpp -o "$objects/$kernel.baseline.o"
    if [ "$(uname -m)" = x86_64 ]; then
        ${CXX:-g++} $flags -mavx2 -mfma -DKERNEL_NAMESPACE=avx2 -DVECTOR_BYTES=32 -c $kernel.cpp -o "$objects/$kernel.avx2.o"
        ${CXX:-g++} $flags -march=x86-64-v4 -mprefer-vector-width=512 -DKERNEL_NAMESPACE=avx512 -DVECTOR_BYTES=64 -c $kernel.cpp -o "$objects/$kernel.avx512.o"
    fi
done
levels=""
[ "$(uname -m)" = x86_64 ] && levels="-DHAVE_X86_LEVELS"
${CXX:-g++} $flags $levels -fvisibility=default -c dispatch.cpp -o "$objects/dispatch.o"
${CXX:-g++} -shared -pthread "$objects"/*.o -o libstretchysnake.so.new
mv libstretchysnake.so.new libstretchysnake.so
