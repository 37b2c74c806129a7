# rbft in a container, from the versions that are tested together.
#
#   docker build -t rbft .                                     # CPU
#   docker build -t rbft:cuda --build-arg TORCH_INDEX= .       # with CUDA: torch as the package registry has it
#   docker run --rm -v "$PWD:/work" rbft fit builtin:quickstart
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" -v "$HOME/.cache:/cache" rbft:cuda fit clips --vlm MODEL
#   docker run --rm -v "$PWD:/work" -p 127.0.0.1:8420:8420 rbft serve --run runs/clips/rbft/seed0 --host 0.0.0.0
#
# Runs, data and caches lie in the folders that are mounted; nothing of them is in the image.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# PyTorch's own index for CPUs leaves out 4 GB of CUDA; the registry's wheels bring their own CUDA, so no other base is needed
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
ENV HF_HOME=/cache/huggingface RBFT_CACHE=/cache/rbft

WORKDIR /opt/rbft
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# torch first: from another index it has versions that end in +cpu, which satisfy the constraints too
RUN if [ -n "$TORCH_INDEX" ]; then pip install -c constraints.txt --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install -c constraints.txt '.[serve,smolvlm]' \
    && rbft --version && rbft doctor --json > /opt/rbft/doctor.json

# any user may be given with --user: runs belong to whoever mounts them
RUN mkdir -p /cache /work && chmod 0777 /cache /work
ENV HOME=/work
WORKDIR /work
EXPOSE 8420
ENTRYPOINT ["rbft"]
CMD ["--help"]
