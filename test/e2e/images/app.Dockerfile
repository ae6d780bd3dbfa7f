# The app under crank, with nothing else but the load generator.
FROM crank:e2e
COPY app load /
CMD ["/app"]
