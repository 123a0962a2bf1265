#!/bin/sh
# Makes the vectors anew: make.sh COSIGN COSIGN_2
#
# COSIGN is the program that e2e/tools/cosign builds, COSIGN_2 the last of version 2:
#   go run github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5
# docker-registry, skopeo, umoci, openssl and curl must be installed. The private keys are thrown away.
set -eu
cosign=$1 cosign_2=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
registry=127.0.0.1:5998
export HOME="$work" COSIGN_PASSWORD= OTEL_TRACES_EXPORTER=none
cat >"$work/config.yml" <<EOF
{"version":"0.1","log":{"level":"error"},"storage":{"filesystem":{"rootdirectory":"$work/storage"}},
"http":{"addr":"$registry"}}
EOF
docker-registry serve "$work/config.yml" >"$work/log" 2>&1 &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
cd "$work"
umoci init --layout image
umoci new --image image:1
sleep 1

field() {
    python3 -c 'import json,sys; document = json.load(sys.stdin); print(eval("document" + sys.argv[1]))' "$1"
}
document() {
    curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json' \
        "http://$registry/v2/$1"
}
push() {
    skopeo copy -q --dest-tls-verify=false oci:image:1 "docker://$registry/$1:1"
    digest=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' "docker://$registry/$1:1")
    echo "$digest" >"$here/digest"
}
simple() { # NAME REPOSITORY
    manifest=$(document "$2/manifests/sha256-${digest#sha256:}.sig")
    echo "$manifest" | field '["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"]' >"$here/$1.sig"
    document "$2/blobs/$(echo "$manifest" | field '["layers"][0]["digest"]')" >"$here/$1.payload.json"
}
bundle() { # NAME REPOSITORY
    list=$(document "$2/manifests/sha256-${digest#sha256:}")
    manifest=$(document "$2/manifests/$(echo "$list" | field '["manifests"][0]["digest"]')")
    document "$2/blobs/$(echo "$manifest" | field '["layers"][0]["digest"]')" >"$here/$1.bundle.json"
}

openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out p256.pem
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out p384.pem
openssl genpkey -algorithm ed25519 -out ed25519.pem
for bits in 2048 3072 4096; do openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:$bits -out rsa$bits.pem; done
offline='--tlog-upload=false --allow-http-registry --yes'
for kind in p256 p384 ed25519 rsa2048 rsa3072 rsa4096; do
    "$cosign" import-key-pair --key $kind.pem --output-key-prefix $kind --yes
    cp $kind.pub "$here/$kind.pub"
    push new/$kind
    "$cosign" sign --key $kind.key --use-signing-config=false $offline "$registry/new/$kind@$digest"
    bundle $kind new/$kind
    push classic/$kind
    "$cosign" sign --key $kind.key --use-signing-config=false --new-bundle-format=false $offline \
        "$registry/classic/$kind@$digest"
    simple $kind classic/$kind
    push old/$kind
    $cosign_2 sign --key $kind.key $offline "$registry/old/$kind@$digest"
    simple $kind-2 old/$kind
done
# What `cosign` makes with a key that a vault holds and that signs with PSS.
cp "$here/rsa2048.payload.json" "$here/pss.payload.json"
openssl dgst -sha256 -sign rsa2048.pem -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest \
    "$here/pss.payload.json" | base64 -w0 >"$here/pss.sig"
cp rsa2048.pub "$here/pss.pub"
# What `cosign` made before 2.5, which hashed with SHA-256 for every curve.
cp "$here/p384.payload.json" "$here/p384-sha256.payload.json"
openssl dgst -sha256 -sign p384.pem "$here/p384-sha256.payload.json" | base64 -w0 >"$here/p384-sha256.sig"
cp p384.pub "$here/p384-sha256.pub"
# Keys that are not taken: of other kinds, too short, and one that is written in a second way.
openssl ec -in p256.pem -pubout -conv_form compressed -out "$here/compressed.pub"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 | openssl pkey -pubout -out "$here/p521.pub"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1 | openssl pkey -pubout -out "$here/secp256k1.pub"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 | openssl pkey -pubout -out "$here/rsa1024.pub"
openssl genpkey -algorithm X25519 | openssl pkey -pubout -out "$here/x25519.pub"
# The same owner says something else about the image.
push new/attested
"$cosign" attest --key p256.key --predicate config.yml --type custom --use-signing-config=false $offline \
    "$registry/new/attested@$digest"
bundle attestation new/attested
