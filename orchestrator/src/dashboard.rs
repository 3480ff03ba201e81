//! The dashboard: a page, its news as server-sent events, and `/metrics`, all drawn from the run's [`View`].
//!
//! It only reads, and says nothing that would let a reader join. What it shows is rebuilt from the journal when the
//! orchestrator starts again.

use crate::page::{Kind, document, sections};
use crate::prometheus;
use crate::view::View;
use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures::stream::{Stream, unfold};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the dashboard is looked for first when nobody said where.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4780);
/// News to one reader come no closer than this.
const NEWS_EVERY: Duration = Duration::from_millis(400);

/// Where to serve the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// On this machine: port 4780, or any other if that is taken.
    #[default]
    Usual,
    /// There, or not at all.
    At(SocketAddr),
    /// Nowhere.
    Nowhere,
}

/// A view that one thread writes and readers follow.
#[derive(Clone)]
pub struct Shared {
    view: Arc<Mutex<View>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    /// Of a view.
    pub fn new(view: View) -> Self {
        Self { view: Arc::new(Mutex::new(view)), changed: watch::channel(0).0 }
    }

    /// Changes the view and wakes the readers.
    pub fn change(&self, with: impl FnOnce(&mut View)) {
        with(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
    }

    /// Reads the view.
    pub fn read<T>(&self, with: impl FnOnce(&View) -> T) -> T {
        with(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        // A view is numbers and words: a reader that died half-way leaves nothing broken.
        self.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A dashboard that is served until this is dropped.
pub struct Served {
    /// Where a browser finds it.
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the view; `None` where that was not wanted.
///
/// # Errors
/// The address that was asked for cannot be listened on, as a sentence.
pub async fn serve(place: Place, view: Shared) -> Result<Option<Served>, String> {
    let bind = async |address: SocketAddr| {
        let failed =
            |e| format!("the dashboard cannot listen on {address} ({e}); choose another with --dashboard");
        TcpListener::bind(address).await.map_err(failed)
    };
    let listener = match place {
        Place::Nowhere => return Ok(None),
        Place::At(address) => bind(address).await?,
        Place::Usual => match bind(USUAL).await {
            Ok(listener) => listener,
            Err(_) => bind(SocketAddr::new(USUAL.ip(), 0)).await?,
        },
    };
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let routes = Router::new()
        .route("/", get(page))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .with_state(view);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::warn!(%error, "the dashboard ended");
        }
    });
    Ok(Some(Served { url: format!("http://{address}/"), task }))
}

async fn page(State(shared): State<Shared>) -> impl IntoResponse {
    let page = shared.read(|view| document(&title(view), &sections(view), Kind::Dashboard));
    ([(CACHE_CONTROL, "no-store")], Html(page))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let text = shared.read(prometheus::text);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// What a reader was sent.
struct Reader {
    shared: Shared,
    changes: watch::Receiver<u64>,
    sent: BTreeMap<&'static str, String>,
}

async fn events(State(shared): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut changes = shared.changed.subscribe();
    changes.mark_changed();
    let reader = Reader { shared, changes, sent: BTreeMap::new() };
    let news = unfold(reader, |mut reader| async move {
        loop {
            reader.changes.changed().await.ok()?;
            if !reader.sent.is_empty() {
                // A burst of notices is one piece of news.
                tokio::time::sleep(NEWS_EVERY).await;
                reader.changes.mark_unchanged();
            }
            let news = reader.news();
            if !news.is_empty() {
                let event = Event::default().data(serde_json::to_string(&news).ok()?);
                return Some((Ok(event), reader));
            }
        }
    });
    Sse::new(news).keep_alive(KeepAlive::default())
}

impl Reader {
    /// The sections that are other than what the reader has.
    fn news(&mut self) -> BTreeMap<&'static str, String> {
        let now = self.shared.read(sections);
        let mut news = BTreeMap::new();
        for section in now {
            if self.sent.get(section.name) != Some(&section.html) {
                self.sent.insert(section.name, section.html.clone());
                news.insert(section.name, section.html);
            }
        }
        news
    }
}

fn title(view: &View) -> String {
    format!("{} {}", view.facts.name, view.facts.id)
}
