//! The yardstick: a bare axum server that sends one fixed body, whatever is asked.
//!
//! `bare --body=FILE [--release-every=MILLISECONDS]` picks a port on the loopback, prints its address, and serves until it
//! is ended. A request with `index` in its query waits for the next release, as a blocking query waits for a change; its
//! answer says in `x-released` when that was (nanoseconds since 1970). No logs, no metrics, no checks: nothing can be
//! served with less.

#![allow(clippy::print_stdout, reason = "a tool talks to its caller")]

use std::error::Error;
use std::io::Write;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::watch;

struct Arguments {
    body: Bytes,
    release_every: Option<Duration>,
}

fn arguments() -> Result<Option<Arguments>, Box<dyn Error>> {
    let mut body = None;
    let mut release_every = None;
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--body", path)) => body = Some(std::fs::read(path)?.into()),
            Some(("--release-every", text)) => release_every = Some(Duration::from_millis(text.parse()?)),
            // `cargo bench` runs every bench target with this; there is nothing to measure alone.
            None if argument == "--bench" => {}
            _ => return Err(format!("no argument `{argument}`; there are --body=FILE, --release-every=MS").into()),
        }
    }
    Ok(body.map(|body| Arguments { body, release_every }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = arguments()? else { return Ok(()) };
    // As many workers as the gateway has.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(arguments))
}

async fn serve(Arguments { body, release_every }: Arguments) -> Result<(), Box<dyn Error>> {
    let (release, released) = watch::channel(0u128);
    if let Some(interval) = release_every {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                release.send_replace(now.as_nanos());
            }
        });
    }
    let answer = move |uri: Uri| {
        let (body, mut released) = (body.clone(), released.clone());
        async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if uri.query().is_some_and(|query| query.contains("index=")) {
                released.mark_unchanged();
                // Without --release-every nobody is left to release: answer at once.
                let _ = released.changed().await;
                headers.insert(
                    "x-released",
                    HeaderValue::from_str(&released.borrow().to_string())
                        .unwrap_or_else(|_| HeaderValue::from_static("0")),
                );
            }
            (headers, body).into_response()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    axum::serve(listener, axum::Router::new().fallback(answer)).await?;
    Ok(())
}
