# The image of orgd: one binary, no shell, no root. `make compose-test` builds it and runs docker-compose.yml.
FROM rust:1.95-bookworm AS build
WORKDIR /src
# What Cargo builds. The test builds less optimized code, which takes a fraction of the time.
ARG BUILD="--profile=dist"

# The dependencies by themselves, below empty crates: this layer stays as long as no manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY domain/Cargo.toml domain/
COPY listener/Cargo.toml listener/
COPY memory/Cargo.toml memory/
COPY migrations/Cargo.toml migrations/
COPY shares/Cargo.toml shares/
RUN for crate in . domain listener memory migrations shares; do mkdir -p $crate/src && touch $crate/src/lib.rs || exit 1; done \
    && echo 'fn main() {}' | tee build.rs src/main.rs > migrations/src/main.rs \
    && cargo build --locked $BUILD

COPY build.rs ./
COPY proto proto
COPY docs docs
COPY domain domain
COPY listener listener
COPY memory memory
COPY migrations migrations
COPY shares shares
COPY src src
# Cargo compares times, and the empty crates are newer than the sources.
RUN find build.rs src */src -name '*.rs' -exec touch {} + \
    && cargo build --locked $BUILD \
    && cp target/*/orgd /orgd

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /orgd /usr/local/bin/orgd
# "nonroot", as a number: Kubernetes' `runAsNonRoot` knows no names.
USER 65532:65532
# A container has an address of its own; who may reach it is the deployment's to say.
ENV ORGD_GRPC_ADDR=0.0.0.0:50051 ORGD_HTTP_ADDR=0.0.0.0:8080 ORGD_OPS_ADDR=0.0.0.0:9090
EXPOSE 50051 8080 9090
ENTRYPOINT ["/usr/local/bin/orgd"]
CMD ["serve"]
# Of which commit, for whoever has the image alone: `--build-arg REVISION=$(git rev-parse HEAD)`.
ARG REVISION=""
LABEL org.opencontainers.image.title="orgd" \
      org.opencontainers.image.description="The organization service: one safe place to change the details of an organization, over gRPC and REST." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
