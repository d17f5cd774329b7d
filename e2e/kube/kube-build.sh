#!/usr/bin/env bash
# Builds etcd, kubectl and the pinned Kubernetes components (go.mod beside this script) as one binary with a link for each, and what a
# node needs beside them (CoreDNS, pause), in $KUBE_BIN (default: a folder of the user's cache). Does nothing when they are there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${KUBE_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/thalamus/kube}
key=$(cat "$here"/{go.mod,go.sum,main.go,pause.c,dns/go.mod,dns/go.sum,dns/main.go} | sha256sum | cut -c1-16)
[ ! -e "$bin/.$key" ] || exit 0
mkdir -p "$bin"
exec 9>"$bin/.lock" # several test programs may ask at once
flock 9
[ ! -e "$bin/.$key" ] || exit 0
v=$(sed -n 's/^\tk8s.io\/kubernetes v\([0-9.]*\).*/\1/p' "$here/go.mod") x=k8s.io/component-base/version
echo "building Kubernetes $v from Go modules: about ten minutes, the first time only" >&2
cd "$here"
CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -o "$bin/kube.new" -ldflags "-s -w
  -X $x.gitVersion=v$v -X $x.gitMajor=${v%%.*} -X $x.gitMinor=$(cut -d. -f2 <<<"$v") -X $x.gitTreeState=clean" .
(cd dns && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "-s -w" -o "$bin/coredns" .)
cc -Os -static -s -o "$bin/pause" pause.c
mv "$bin/kube.new" "$bin/kube" # running processes keep the old one
for n in etcd kubectl kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do ln -sf kube "$bin/$n"; done
rm -f "$bin"/.????????????????
touch "$bin/.$key"
