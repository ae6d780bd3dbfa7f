# crank's own image: two static binaries and nothing else, about 20 MB. An app's image takes them out of it:
#
#     COPY --from=crank /crank /crankctl /usr/local/bin/
#
# Builds with BuildKit, docker's classic builder and buildah (buildah bud --format docker: the OCI format
# knows no HEALTHCHECK). Go compiles for any architecture on any other, so nothing is emulated: BuildKit and
# buildah take the architecture from --platform linux/arm64. The classic builder cannot copy from a stage of
# another platform: --build-arg GOARCH=arm64 (and GOARM=7 for arm) gives it programs for another architecture, in
# an image that says its own. Only BuildKit knows BUILDPLATFORM; the others run on something else than amd64
# with --build-arg BUILDPLATFORM=linux/arm64.
ARG GO_VERSION=1.26
ARG BUILDPLATFORM

FROM --platform=${BUILDPLATFORM:-linux/amd64} golang:${GO_VERSION}-bookworm AS build
ARG TARGETARCH
ARG TARGETVARIANT
ARG GOARCH
ARG GOARM
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
ARG REVISION
# A user, since scratch has none, and its runtime directory.
RUN variant=${TARGETVARIANT#v} \
 && CGO_ENABLED=0 GOARCH=${GOARCH:-$TARGETARCH} GOARM=${GOARM:-$variant} \
    go build -trimpath -o /out/ \
    -ldflags="-s -w -X github.com/crankctl/crank/pkg/version.release=$VERSION -X github.com/crankctl/crank/pkg/version.revision=$REVISION" \
    ./cmd/crank ./cmd/crankctl \
 && ln -s crankctl /out/crankx \
 && mkdir -p /out/etc /out/run /empty \
 && echo 'crank:x:65532:65532:crank:/:/crank' >/out/etc/passwd \
 && echo 'crank:x:65532:' >/out/etc/group

FROM scratch
ARG VERSION=devel
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="crank" \
      org.opencontainers.image.description="An init for containers that replaces the running app without closing its sockets" \
      org.opencontainers.image.source="https://github.com/crankctl/crank" \
      org.opencontainers.image.url="https://github.com/crankctl/crank" \
      org.opencontainers.image.documentation="https://github.com/crankctl/crank/tree/main/docs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /out/ /
COPY --from=build --chown=65532:65532 /empty /run/crank
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/crankctl", "ready"]
ENTRYPOINT ["/crank", "--"]
