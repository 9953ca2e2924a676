# The command line, and the server of Docs/server.md, for a machine with or without an NVIDIA card:
#   docker build -t dualtrack-command --target command .
#   docker run --gpus all -v ./clips:/clips -v ./models:/models dualtrack-command run clip.mp4 --depth-mm 44 -o out
#   docker build -t dualtrack .
#   docker run --gpus all -p 8765:8765 -v ./keys:/keys -v ./models:/models dualtrack
# /clips is where the command starts, and takes its results; the user of the container, 1000, must be able to write there.
# /keys holds certificate.pem and private.pem, and takes the key that is made at the first start.
FROM python:3.12-slim AS package

ENV PYTHONUNBUFFERED=1 DUALTRACK_MODELS=/models

COPY pyproject.toml constraints.txt README.md LICENSE NOTICE /source/
COPY DualTrackCore /source/DualTrackCore
RUN pip install --no-cache-dir -c /source/constraints.txt "/source[video,dicom,report,server]" \
    && rm -rf /source \
    && useradd --create-home --uid 1000 dualtrack \
    && install -d -o dualtrack /models /keys /clips

USER 1000

FROM package AS command
VOLUME ["/models", "/clips"]
WORKDIR /clips
ENTRYPOINT ["dualtrack"]
CMD ["--help"]

FROM package AS server
VOLUME ["/models", "/keys"]
EXPOSE 8765
STOPSIGNAL SIGTERM

ENTRYPOINT ["dualtrack", "serve", "--host", "0.0.0.0", "--key-file", "/keys/key"]
# Behind a proxy that does TLS itself, give --insecure instead.
CMD ["--certificate", "/keys/certificate.pem", "--private-key", "/keys/private.pem"]
