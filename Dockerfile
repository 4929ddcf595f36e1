# The image of orgd: one binary, no shell, no root.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY migrations migrations
COPY src src
RUN cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/orgd /usr/local/bin/orgd
USER nonroot
EXPOSE 50051 8080 9090
ENTRYPOINT ["/usr/local/bin/orgd"]
CMD ["serve"]
