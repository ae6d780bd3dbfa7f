# The app beside a shell, which the updater sidecar of deploy/kustomize needs.
FROM debian:bookworm-slim
COPY app load /
USER 65532:65532
