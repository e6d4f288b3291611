# The image that deploy/kubernetes/train.yaml uses: `lenet-keras` for the CPU, with Fashion-MNIST.
#
#   docker build --tag lenet-keras:0.1.0 .
#   docker run --rm --volume lenet-keras:/work lenet-keras:0.1.0 train --reg weight_decay
#
# Runs and exported models are written to /work, which must be writable by user 1000, group 1000. Docker ensures this
# for a new named volume; in a Kubernetes pod, `securityContext: {fsGroup: 1000}` does.
FROM python:3.13-slim-trixie AS build
COPY . /source
RUN python -m venv /opt/lenet-keras \
    && /opt/lenet-keras/bin/pip install --no-cache-dir /source

FROM python:3.13-slim-trixie
# Versions are not pinned, because Debian's archive keeps only one version of each package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 lenet \
    && useradd --uid 1000 --gid 1000 --create-home lenet \
    && install --directory --owner=lenet --group=lenet /work
COPY --from=build /opt/lenet-keras /opt/lenet-keras
ENV PATH="/opt/lenet-keras/bin:$PATH"
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["lenet-keras"]
CMD ["--help"]
