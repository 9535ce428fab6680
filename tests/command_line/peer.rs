//! A made server: Nomad's, or a gateway, as far as a command asks it. It answers at once, and waits where an index is given.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is answered, by path, and what was asked.
pub(crate) struct Peer {
    /// `http://HOST:PORT`.
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Peer {
    /// Serves these bodies, by path without its query; everything else is Nomad's 404.
    pub(crate) async fn serve(bodies: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let bodies: Arc<BTreeMap<&'static str, Value>> = Arc::new(bodies.into_iter().collect());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            let (bodies, seen) = (Arc::clone(&bodies), Arc::clone(&seen));
            async move {
                let target = request.uri().to_string();
                seen.lock().expect("nobody panicked").push((target.clone(), request.headers().clone()));
                if target.contains("index=") && !target.contains("index=0") {
                    pending::<()>().await;
                }
                let response = Response::builder().header("X-Nomad-Index", "7");
                match bodies.get(request.uri().path()) {
                    Some(body) => response.body(Body::from(body.to_string())),
                    None => Response::builder().status(404).body(Body::empty()),
                }
                .expect("a legal answer")
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// The headers of every request whose target begins so.
    pub(crate) fn asked(&self, target: &str) -> Vec<HeaderMap> {
        let asked = self.asked.lock().expect("nobody panicked");
        asked.iter().filter(|(asked, _)| asked.starts_with(target)).map(|(_, headers)| headers.clone()).collect()
    }
}

/// A plugin in Nomad's list.
pub(crate) fn stub(id: &str, provider: &str, controllers: (u32, u32), nodes: (u32, u32)) -> Value {
    json!({
        "ID": id, "Provider": provider, "ControllerRequired": controllers.1 > 0, "CreateIndex": 1, "ModifyIndex": 7,
        "ControllersHealthy": controllers.0, "ControllersExpected": controllers.1,
        "NodesHealthy": nodes.0, "NodesExpected": nodes.1,
    })
}

/// Names as drivers, operators and attackers choose them.
pub(crate) const NAMES: [(&str, &str); 10] = [
    ("plain", "csi.example.com"),
    ("组合驱动程序", "存储.example.com"),
    ("e\u{301}te\u{301}", "cafe\u{301}.example.com"),
    ("محرك", "تخزين.example.com"),
    ("נהג", "אחסון.example.com"),
    ("चालक", "भंडारण.example.com"),
    ("ไดรเวอร์", "ที่เก็บข้อมูล.example.com"),
    ("👩\u{200d}🚀", "🗄.example.com"),
    ("red\u{1b}[31m\u{7}", "over\u{202e}ride\nnext"),
    ("a-name-that-is-much-longer-than-a-narrow-screen-has-room-for-in-one-line", "long.example.com"),
];

/// Nomad's list of them.
pub(crate) fn named() -> Value {
    NAMES.iter().map(|(id, provider)| stub(id, provider, (0, 1), (2, 3))).collect()
}
