# An image with the code and what requirements.txt names, for CPU or CUDA. The code runs as a user without rights.
#
#   docker build -t reid .                                     CUDA: torch as the package index has it for Linux
#   docker build -t reid --build-arg TORCH=cpu .               CPU alone, some gigabytes smaller
#   docker run --rm -v "$PWD/data:/app/data" -v "$PWD/logs:/app/logs" reid \
#       python run_phased_loss.py --config configs/Synthetic/baseline.yml --seeds 0
#
# On GPUs add `--gpus all`, and for loaders with several workers `--shm-size 8g`. Mounted folders have to be writable by
# user 1000, or by the one that `docker run --user` names. Neither build nor run has been tried: no Docker was at hand.
FROM python:3.11-slim

ARG TORCH=cuda
WORKDIR /app
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

COPY requirements.txt constraints.txt ./
# the CPU builds have an index of their own, and come first, so that the rest finds torch already there
RUN case "$TORCH" in \
        cuda) ;; \
        cpu) pip install torch torchvision -c constraints.txt --index-url https://download.pytorch.org/whl/cpu ;; \
        *) echo "TORCH got '$TORCH', allowed: cuda, cpu" >&2; exit 2 ;; \
    esac \
    && pip install -r requirements.txt -c constraints.txt

COPY . .
RUN useradd --uid 1000 --create-home reid && mkdir -p data logs pretrained && chown reid data logs pretrained
USER reid
CMD ["python", "run_phased_loss.py", "--help"]
