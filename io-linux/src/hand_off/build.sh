#!/bin/sh
# Makes hand_off.bpf.o of hand_off.bpf.c, beside this file or where the first argument says. The object is committed, so
# that neither a build nor a host that runs tlb needs clang.
set -eu
cd "$(dirname "$0")"
out=${1:-hand_off.bpf.o}
clang -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -fdebug-prefix-map="$PWD"=. \
	-I"/usr/include/$(uname -m)-linux-gnu" -c hand_off.bpf.c -o "$out"
llvm-strip -g "$out"
