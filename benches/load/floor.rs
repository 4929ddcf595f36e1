//! A floor: what axum alone costs. It parses the body of a `PUT`, answers, and stores nothing.

use axum::{Json, Router, extract::Path, routing::put};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Update {
    name: String,
}

#[derive(Serialize)]
struct Updated {
    id: u64,
}

/// Serves on a free port, whose address it prints.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/organizations/{id}", put(update));
    axum::serve(listener, router).await.unwrap();
}

async fn update(Path(id): Path<u64>, Json(Update { name }): Json<Update>) -> Json<Updated> {
    std::hint::black_box(name);
    Json(Updated { id })
}
