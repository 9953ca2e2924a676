# The server of Docs/server.md, for a machine with or without an NVIDIA card:
#   docker build -t dualtrack .
#   docker run --gpus all -p 8765:8765 -v ./keys:/keys -v ./models:/models dualtrack
# /keys holds certificate.pem and private.pem, and takes the key that is made at the first start.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 DUALTRACK_MODELS=/models

COPY pyproject.toml constraints.txt README.md LICENSE /source/
COPY DualTrackCore /source/DualTrackCore
RUN pip install --no-cache-dir -c /source/constraints.txt "/source[server]" \
    && rm -rf /source \
    && useradd --create-home --uid 1000 dualtrack \
    && install -d -o dualtrack /models /keys

USER 1000
VOLUME ["/models", "/keys"]
EXPOSE 8765
STOPSIGNAL SIGTERM

ENTRYPOINT ["dualtrack", "serve", "--host", "0.0.0.0", "--key-file", "/keys/key"]
# Behind a proxy that does TLS itself, give --insecure instead.
CMD ["--certificate", "/keys/certificate.pem", "--private-key", "/keys/private.pem"]
