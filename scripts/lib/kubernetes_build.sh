# shellcheck shell=bash
# A real Kubernetes without containers or a registry: built from Debian's source
# package, which is complete and vendored, with Debian's Go. Built once; the binaries stay in the
# user's cache. The system's apt configuration is read and not changed. Sourced after setup.sh.

KUBE_CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/vswitch/kubernetes
# The package's name within GOPATH: Go finds its vendored packages there only.
readonly KUBE_PACKAGE=k8s.io/kubernetes

readonly KUBE_PROGRAMS=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)

# kube_program NAME: prints the path of the newest one in the cache; fails if there is none.
kube_program() {
    local newest
    newest=$(find "$KUBE_CACHE" -mindepth 2 -maxdepth 2 -name "$1" -perm -u+x 2>/dev/null |
        sort -V | tail -n 1)
    [[ -n $newest ]] && printf '%s\n' "$newest"
}

kube_is_built() {
    local name
    for name in "${KUBE_PROGRAMS[@]}"; do kube_program "$name" >/dev/null || return 1; done
}

# kube_build: installs what is needed to run the server, and builds Kubernetes if the cache lacks a program
# of it. The caller's exit has to call kube_build_clean.
kube_build() {
    setup_packages etcd kubernetes
    ! kube_is_built || return 0
    setup_packages kubernetes-build
    mkdir -p "$KUBE_CACHE"
    exec {kube_lock}>"$KUBE_CACHE/lock"
    if ! flock --nonblock "$kube_lock"; then
        step "Waiting for another build of Kubernetes to end"
        flock "$kube_lock"
    fi
    if ! kube_is_built; then
        # Under the lock, what is here was left by a build that was killed.
        rm -rf "$KUBE_CACHE"/work.*
        KUBE_WORK=$(mktemp -d "$KUBE_CACHE/work.XXXXXX")
        kube_fetch
        kube_compile
        kube_build_clean
    fi
    exec {kube_lock}>&-
}

KUBE_WORK=
KUBE_GO_PID=

# kube_build_clean: ends a build that runs, and removes what it worked in.
kube_build_clean() {
    if [[ -n $KUBE_GO_PID ]]; then
        kill -KILL -- "-$KUBE_GO_PID" 2>/dev/null || true
        wait "$KUBE_GO_PID" 2>/dev/null || true
    fi
    [[ -z $KUBE_WORK ]] || rm -rf "$KUBE_WORK"
    KUBE_WORK=
}

# Fetches and unpacks the source into KUBE_WORK; sets kube_version, Debian's.
kube_fetch() {
    local apt log=$KUBE_WORK/fetch.log
    mkdir -p "$KUBE_WORK"/{lists/partial,cache/archives/partial,sources,gopath/src/"${KUBE_PACKAGE%/*}"}
    kube_source_lists "$KUBE_WORK/sources"
    apt=(apt-get -q -o "Dir::Etc::SourceList=/dev/null" -o "Dir::Etc::SourceParts=$KUBE_WORK/sources"
        -o "Dir::State::Lists=$KUBE_WORK/lists" -o "Dir::Cache=$KUBE_WORK/cache"
        -o "APT::Sandbox::User=$(id -un)")
    step "Fetching the source package kubernetes (45 MB)"
    # A list that cannot be had matters only if the package is in it.
    "${apt[@]}" update >"$log" 2>&1 || true
    (cd "$KUBE_WORK" && "${apt[@]}" source --download-only kubernetes) >>"$log" 2>&1 ||
        kube_die "apt-get cannot fetch the source package kubernetes" "$log"
    kube_version=$(sed -n '0,/^Version: /s/^Version: //p' "$KUBE_WORK"/kubernetes_*.dsc)
    # apt-get has compared the files with the signed list.
    dpkg-source --no-check -x "$KUBE_WORK"/kubernetes_*.dsc "$KUBE_WORK/gopath/src/$KUBE_PACKAGE" \
        >>"$log" 2>&1 || kube_die "dpkg-source cannot unpack kubernetes $kube_version" "$log"
}

# kube_source_lists DIR: the system's package sources, of both kinds, as sources of source packages.
kube_source_lists() {
    local directory=$1 list='' parts='' file
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    for file in "$list" "$parts"/*.list; do
        [[ -f $file ]] || continue
        sed -nE 's/^[[:space:]]*deb([[:space:]])/deb-src\1/p' "$file" \
            >>"$directory/$(basename "$file")"
    done
    for file in "$parts"/*.sources; do
        [[ -f $file ]] || continue
        sed -E 's/^Types:.*/Types: deb-src/I' "$file" >"$directory/$(basename "$file")"
    done
    grep -Eqsi '^(deb-src|Types)' "$directory"/* ||
        die "apt has no package sources from which the source of kubernetes could be fetched"
}

# Builds without network or modules: the source's go.mod names other versions than it vendors.
kube_compile() {
    local upstream log=$KUBE_WORK/build.log total pid half versions='' began=$SECONDS
    # 1.20.5+really1.20.2-1.1 is 1.20.2.
    upstream=${kube_version##*really}
    upstream=${upstream%%-*}
    export GO111MODULE=off GOPROXY=off GOFLAGS='' GOTOOLCHAIN=local CGO_ENABLED=0
    export GOPATH=$KUBE_WORK/gopath GOCACHE=$KUBE_WORK/go-cache GOTMPDIR=$KUBE_WORK
    cd "$GOPATH/src/$KUBE_PACKAGE"
    # The vendored one reads the maps of Go before 1.18; with a later Go the server dies of it.
    rm vendor/github.com/modern-go/reflect2/*.{go,s}
    cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2
    step "Generating the API's description of itself"
    kube_generate_openapi >"$log" 2>&1 || kube_die "openapi-gen of kubernetes fails" "$log"
    total=$(go list -deps "${KUBE_PROGRAMS[@]/#/./cmd/}" | wc -l)
    step "Building Kubernetes $upstream, $total packages (once; about ten minutes on two cores)"
    # Each half of a program has a version of its own; its own build writes both.
    for half in client-go/pkg component-base; do
        half=$KUBE_PACKAGE/vendor/k8s.io/$half/version
        versions+=" -X $half.gitVersion=v$upstream -X $half.gitMajor=${upstream%%.*}"
        versions+=" -X $half.gitMinor=$(cut -d. -f2 <<<"$upstream")"
    done
    # A group of its own, that its compilers can be ended with it.
    mkdir "$KUBE_WORK/bin"
    setsid nice -n 5 go build -v -trimpath -o "$KUBE_WORK/bin/" \
        -ldflags "-s -w$versions" "${KUBE_PROGRAMS[@]/#/$KUBE_PACKAGE/cmd/}" >"$log" 2>&1 &
    KUBE_GO_PID=$!
    while ! wait_until 30 kube_ended "$KUBE_GO_PID"; do
        say "  $(wc -l <"$log") of them after $((SECONDS - began)) s"
    done
    pid=$KUBE_GO_PID KUBE_GO_PID=
    wait "$pid" || kube_die "Kubernetes $upstream does not build" "$log"
    cd "$root"
    mkdir -p "$KUBE_CACHE/$kube_version"
    mv "$KUBE_WORK"/bin/* "$KUBE_CACHE/$kube_version/"
    step "Built in $((SECONDS - began)) s; it stays in $KUBE_CACHE/$kube_version"
}

kube_ended() { ! kill -0 "$1" 2>/dev/null; }

# The one generated file that the source package leaves out, made of the same packages and by the
# same tool as the source's own Makefile.generated_files has it.
kube_generate_openapi() {
    local inputs
    inputs=$(grep -rl --include='*.go' '^// *+k8s:openapi-gen=' pkg vendor/k8s.io/*/ |
        grep -vE 'k8s.io/(code-generator|sample-apiserver)/' |
        xargs -n 1 dirname | LC_ALL=C sort -u | sed "s|^|$KUBE_PACKAGE/|" | paste -sd,)
    go build -o "$KUBE_WORK/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    nice -n 5 "$KUBE_WORK/openapi-gen" --logtostderr -i "$inputs" -O zz_generated.openapi \
        -p "$KUBE_PACKAGE/pkg/generated/openapi" -r "$KUBE_WORK/violations.list" \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt
}

# kube_die TEXT LOG: with the log's end, because the log goes with the work.
kube_die() {
    tail -n 15 "$2" >&2
    die "$1"
}
