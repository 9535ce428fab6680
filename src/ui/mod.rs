//! The page for people: static files, compiled in. Nothing is built, and nothing is fetched from elsewhere when it runs.
//!
//! The files are plain HTML, CSS and JavaScript modules, beside this one. `docs/unhealthy.md` is among them: the page takes
//! its remedies from there, so that what is documented is what is shown. Who asks, and how it is sent, is `api`'s business.

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its path below `/ui/`; empty for the page itself.
    pub path: &'static str,
    /// What it is, as HTTP says it.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const TEXT: &str = "text/markdown; charset=utf-8";

/// Every file there is.
pub const FILES: &[File] = &[
    File { path: "", content_type: HTML, bytes: include_bytes!("index.html") },
    File { path: "style.css", content_type: STYLE, bytes: include_bytes!("style.css") },
    File { path: "icon.svg", content_type: IMAGE, bytes: include_bytes!("icon.svg") },
    File { path: "main.js", content_type: SCRIPT, bytes: include_bytes!("main.js") },
    File { path: "dom.js", content_type: SCRIPT, bytes: include_bytes!("dom.js") },
    File { path: "words.js", content_type: SCRIPT, bytes: include_bytes!("words.js") },
    File { path: "link.js", content_type: SCRIPT, bytes: include_bytes!("link.js") },
    File { path: "worker.js", content_type: SCRIPT, bytes: include_bytes!("worker.js") },
    File { path: "store.js", content_type: SCRIPT, bytes: include_bytes!("store.js") },
    File { path: "table.js", content_type: SCRIPT, bytes: include_bytes!("table.js") },
    File { path: "timeline.js", content_type: SCRIPT, bytes: include_bytes!("timeline.js") },
    File { path: "views.js", content_type: SCRIPT, bytes: include_bytes!("views.js") },
    File { path: "unhealthy.md", content_type: TEXT, bytes: include_bytes!("../../docs/unhealthy.md") },
];
