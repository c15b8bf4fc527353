# docker build -t gristmill . && docker run --rm -it --shm-size=1g -v "$PWD/out:/gristmill/out" gristmill
# Another index: docker build --build-arg PIP_INDEX_URL=... ; the CPU build of torch unless TORCH says otherwise.
FROM debian:12-slim
ARG PIP_INDEX_URL
ARG TORCH=cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git make python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 gristmill && install -d -o gristmill /gristmill
USER gristmill
WORKDIR /gristmill
# Dependencies first: they change less often than the code.
COPY --chown=gristmill requirements requirements
COPY --chown=gristmill pyproject.toml Makefile README.md LICENSE ./
COPY --chown=gristmill pipelines/__init__.py pipelines/
COPY --chown=gristmill training/__init__.py training/
COPY --chown=gristmill jobs/__init__.py jobs/
COPY --chown=gristmill cluster/__init__.py cluster/
RUN PIP_NO_CACHE_DIR=1 make setup TORCH=$TORCH
COPY --chown=gristmill . .
ENV PATH=/gristmill/.venv/bin:$PATH
CMD ["make", "run"]
