# The image of every node of a cluster, of the head and of the workers. It has two forms, which differ in the build of PyTorch:
#   docker build --target cuda --tag registry.example.com/rho-score:cuda .
#   docker build --target cpu --build-arg TORCH_INDEX=URL --tag registry.example.com/rho-score:cpu .
# URL is PyTorch's index of CPU builds, which its installation page names. Without it, pip takes the build with CUDA, which
# also runs on CPUs but is some gigabytes larger. `make image` builds the second form from an empty Debian tree and runs a job in it.
# Versions are those of constraints.txt, which the tests run with.
ARG BASE=debian:12.12-slim

# A wheel of this project with its compiled kernel.
FROM ${BASE} AS wheel
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --constraint constraints.txt 'setuptools>=77' 'Cython>=3.1'
COPY rho_score rho_score
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# The compiler stays: torch.compile and Triton call it when a model is loaded. KubeRay's probes call wget.
FROM ${BASE} AS installed
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates g++ libc6-dev procps python3-dev python3-venv wget \
    && rm -rf /var/lib/apt/lists/*
# A login shell, which KubeRay can be told to use, resets PATH.
RUN echo 'PATH=/opt/rho-score/bin:'"\$PATH" > /etc/profile.d/rho-score.sh \
    && useradd --uid 1000 --create-home --shell /bin/bash ray
ENV PATH=/opt/rho-score/bin:$PATH
COPY constraints.txt /opt/constraints.txt
ARG TORCH_INDEX=
RUN python3 -m venv /opt/rho-score \
    && pip install --no-cache-dir --constraint /opt/constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY --from=wheel /wheels /opt/dist
# Packages that this project does not need by itself, such as "gcsfs adlfs" for gs:// and az:// URLs.
ARG PACKAGES=
# hadolint ignore=SC2086
RUN pip install --no-cache-dir --constraint /opt/constraints.txt \
        "$(echo /opt/dist/rho_score-*.whl)[s3,delta,report,view,train,adapters]" $PACKAGES \
    && python -c 'import rho_score.ranking._kernel'
USER 1000:1000
WORKDIR /home/ray
CMD ["rho-score", "--help"]

FROM installed AS cpu

# NVIDIA's container runtime reads these two; the libraries of CUDA come with PyTorch's wheels.
FROM installed AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 0:0
RUN pip install --no-cache-dir --constraint /opt/constraints.txt "$(echo /opt/dist/rho_score-*.whl)[large,fp8]"
USER 1000:1000
