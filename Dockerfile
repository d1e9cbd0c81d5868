# wsipipe in a container, for CPUs (the default) and for NVIDIA GPUs (--target cuda); docs/docker.md tells more.
#   docker build -t wsipipe:0.1 --build-arg TORCH_INDEX=... .     PyTorch from an index of CPU wheels: 2 GB, not 8
#   docker build -t wsipipe:0.1-cuda --target cuda .              PyTorch as the default index has it, with CUDA
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS build
ARG TORCH_INDEX=""
ARG EXTRAS="view,dicom"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/venv/bin:$PATH
RUN python -m venv /venv
WORKDIR /src
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . .
RUN pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON} AS runtime
# numba keeps what it compiles where any user may write, also one that `docker run --user` invents
ENV PATH=/venv/bin:$PATH NUMBA_CACHE_DIR=/var/cache/wsipipe PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 wsipipe && install -d -m 1777 /var/cache/wsipipe
COPY --from=build /venv /venv
USER 1000
WORKDIR /data
ENTRYPOINT ["wsipipe"]
CMD ["--help"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000

FROM runtime AS cpu
USER 1000
