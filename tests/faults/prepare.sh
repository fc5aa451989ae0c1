# Sourced by tests/chaos, tests/soak and tests/failpoints: packages, and the programs to run. Builds nothing that ARGOSY_BIN_DIR has.

unset SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE AWS_CA_BUNDLE
"$root/deploy/build/packages" e2fsprogs xfsprogs libfaketime util-linux

# Builds what is missing and prints the program that makes the faults.
faults() {
    if [ -n "${ARGOSY_BIN_DIR:-}" ] && [ -x "$ARGOSY_BIN_DIR/faults" ]; then
        printf '%s\n' "$ARGOSY_BIN_DIR/faults"
        return
    fi
    source "$root/deploy/build/prepare"
    (cd "$root" && cargo build --quiet --package tests --bin faults >&2)
    if [ -z "${ARGOSY_BIN_DIR:-}" ]; then
        (cd "$root" && cargo build --quiet --package node --bins --features failpoints >&2)
    fi
    printf '%s\n' "$CARGO_TARGET_DIR/debug/faults"
}
