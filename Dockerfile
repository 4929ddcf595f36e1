# The image of orgd: one binary, no shell, no root.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY domain domain
COPY listener listener
COPY memory memory
COPY migrations migrations
COPY shares shares
COPY src src
RUN cargo build --profile dist --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/dist/orgd /usr/local/bin/orgd
USER nonroot
# A container has an address of its own; who may reach it is the deployment's to say.
ENV ORGD_GRPC_ADDR=0.0.0.0:50051 ORGD_HTTP_ADDR=0.0.0.0:8080 ORGD_OPS_ADDR=0.0.0.0:9090
EXPOSE 50051 8080 9090
ENTRYPOINT ["/usr/local/bin/orgd"]
CMD ["serve"]
