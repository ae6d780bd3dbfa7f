# The app alone: it knows nothing of crank.
FROM scratch
COPY app load /
USER 65532:65532
ENTRYPOINT ["/app"]
