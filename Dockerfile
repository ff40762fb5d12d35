# Server of the champion (`phototag serve`) on a CPU. See docs/deploy.md.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/phototag
ENV PATH=/opt/phototag/bin:$PATH
# The pins of the project, without the CUDA packages that the CPU build of PyTorch does not need.
COPY requirements.lock .
RUN grep -vE '^(cuda-|nvidia-[^m]|triton)' requirements.lock > constraints.txt \
    && pip install --no-cache-dir --constraint constraints.txt uv \
    && uv pip install --no-cache --torch-backend cpu --constraint constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN uv pip install --no-cache --torch-backend cpu --constraint constraints.txt \
    '.[serve,pretrained,heic]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /home/phototag --create-home phototag \
    && install -d -o phototag /log
COPY --from=build /opt/phototag /opt/phototag
ENV PATH=/opt/phototag/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PHOTOTAG_MODEL=models:/phototag@champion
USER phototag
WORKDIR /home/phototag
VOLUME /log
EXPOSE 5001
# The server needs some seconds to load the model.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5001/ready', timeout=4)"]
ENTRYPOINT ["phototag", "serve", "--host", "0.0.0.0", "--port", "5001"]
