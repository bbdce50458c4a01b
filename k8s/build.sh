#!/bin/sh
# Build the image with podman, on a machine that may have no registry and a package index of its own:
# the base is Debian's python3, made by debootstrap unless BASE names an image, and pip's configuration stays outside,
# because the wheels are fetched by this machine's pip (whose Python must be the base's: 3.11) and mounted.
#
#     k8s/build.sh [podman build's arguments]        as root; the image is localhost/distcluster:VERSION, as in
#                                                    pyproject.toml, unless IMAGE names another
#     k8s/build.sh sources                           print the digest of what is built, which labels the image
set -eu
cd "$(dirname "$0")/.."
sources=$(find distcluster k8s/Dockerfile k8s/entrypoint k8s/warm.py constraints.txt pyproject.toml \
    -type f ! -path '*/__pycache__/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-64)
if [ "${1-}" = sources ]; then
    echo "$sources"
    exit
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
: "${BASE=}" "${IMAGE=localhost/distcluster:$version}" "${PYTHON=python3}"
work=$PWD/build/image
PATH=$PATH:/usr/sbin:/sbin  # debootstrap
mkdir -p "$work"
exec 9>"$work/lock"  # as long as it is held, an image is being made: the tests wait for it
flock 9

if [ -z "$BASE" ]; then
    BASE=localhost/debian-python:bookworm
    if ! podman image exists "$BASE"; then
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" \
            >"$work/debootstrap.log"
        tar -C "$work/root" -c . | podman import --quiet - "$BASE"
        rm -rf "$work/root"
    fi
fi

"$PYTHON" -m pip wheel --quiet --constraint constraints.txt --wheel-dir "$work/wheels" \
    . prometheus_client 'setuptools>=77' wheel
rm -rf build/lib build/bdist.*  # left by the package's own wheel; a later one would take old modules from there
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$work/pip.conf"

# runc and cgroupfs also work where no systemd runs.
cat >"$work/containers.conf" <<EOF
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
EOF
# Without layers in between: they took a third of the time.
CONTAINERS_CONF=$work/containers.conf podman build --pull=never --network=none --layers=false \
    --ulimit nofile=20000:20000 --label "distcluster.sources=$sources" --build-arg "BASE=$BASE" \
    --volume "$work/wheels:/wheels:ro" --volume "$work/pip.conf:/etc/pip.conf:ro" \
    --file k8s/Dockerfile --tag "$IMAGE" "$@" .
