//! Lists, then watches, then watches on from where it stood, for ever.

use std::{rc::Rc, time::Duration};

use http_body_util::BodyExt as _;
use hyper::http::Uri;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    access::{chain, sentence},
    backoff::{Backoff, jittered},
    connection::{Failure, Live, read, refusal},
    lineage::{Change, Happened, Lineage},
    resource::{Resource, escaped},
    server::Server,
    wire::{Line, Lines, Meta, Page, Status, TooLong},
};
use crate::manifest::Edit;

/// Largest page of a list, in bytes.
const PAGE_BYTES: usize = 128 << 20;
/// Largest line of a watch, in bytes. An API server stores objects of up to 1.5 MiB.
const LINE_BYTES: usize = 8 << 20;
/// Most objects of one list.
const OBJECTS: usize = 500_000;
/// A server that refuses for good is asked this often.
const DENIED: Duration = Duration::from_secs(15);
/// Longest wait that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// Where the objects of one list go.
pub(super) trait Sink {
    /// An object as it is kept until its list is complete.
    type Item;
    /// Decodes as early as possible: the raw text of a large list is not held.
    fn read(&self, object: Value) -> Self::Item;
    /// Takes changes, which belong together.
    fn take(&mut self, changes: Vec<Change<Self::Item>>) -> Vec<Edit>;
}

/// Follows one list until it is dropped.
pub(super) async fn follow<S: Sink>(
    server: Rc<Server>,
    resource: Resource,
    namespace: &str,
    sink: S,
) {
    let mut following = Following {
        path: resource.path(namespace),
        server: &server,
        resource,
        sink,
        lineage: Lineage::default(),
        url: None,
        opened: None,
        listed: None,
    };
    let mut backoff = Backoff::new(server.timing.backoff_first, server.timing.backoff_longest);
    loop {
        let signal = server.answering().await;
        let torn = async {
            server.torn(signal).await;
            None
        };
        let ended = tokio::select! {
            ended = following.turn() => Some(ended),
            torn = torn => torn,
        };
        let lived = following.opened.take().map(|opened| opened.elapsed());
        let failure = ended.as_ref().and_then(|ended| ended.as_ref().err());
        server.closed(resource, failure);
        // Neither a list that succeeds nor a watch that ends at once counts: a server that gives only these is not
        // to be listed over and over.
        if lived.is_some_and(|lived| lived >= server.timing.backoff_longest) {
            backoff.reset();
        }
        let Some(ended) = ended else { continue };
        let mut wait = jittered(backoff.next());
        match ended {
            Err(Failure::Gone) => {
                following.lineage.lost();
                // The server answers: what it refused before holds the list back no longer. Unless that was read just
                // now: who forgets each list at once is not to be listed over and over.
                let longest = server.timing.backoff_longest;
                if following.listed.is_none_or(|at| at.elapsed() >= longest) {
                    wait = jittered(server.timing.backoff_first);
                }
            }
            Err(Failure::Unreachable(_) | Failure::Kubeconfig(_)) => {
                tokio::select! {
                    () = sleep(wait) => continue,
                    () = server.woken(signal) => {}
                }
                wait = jittered(server.timing.backoff_first);
            }
            Err(Failure::Refused {
                code, retry_after, ..
            }) => {
                if matches!(code, 403 | 404) {
                    wait = (wait * 8).min(DENIED);
                }
                wait = wait.max(retry_after.unwrap_or_default().min(LONGEST_ASKED));
            }
            Err(Failure::Malformed(_)) | Ok(()) => {}
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = server.torn(signal) => {}
        }
    }
}

struct Following<'a, S> {
    server: &'a Server,
    resource: Resource,
    path: String,
    sink: S,
    lineage: Lineage,
    /// The server that the lineage is of.
    url: Option<Uri>,
    opened: Option<Instant>,
    /// When the last list was complete.
    listed: Option<Instant>,
}

impl<S: Sink> Following<'_, S> {
    /// Once: a list if there is need for one, and a watch until it ends. May be dropped at any point.
    async fn turn(&mut self) -> Result<(), Failure> {
        let live = self.server.connection.live().await?;
        if self.url.as_ref() != Some(&live.url) {
            self.lineage.lost();
            self.url = Some(live.url.clone());
        }
        if self.lineage.version().is_none() {
            let (version, items) = self.list(&live).await?;
            self.listed = Some(Instant::now());
            let changes = self.lineage.listed(version, items);
            let edits = self.sink.take(changes);
            self.server.listed(self.resource, edits);
        }
        self.watch(&live).await
    }

    async fn list(&self, live: &Live) -> Result<(String, Vec<(Meta, S::Item)>), Failure> {
        match self.pages(live, Some(self.server.timing.page)).await {
            // The server forgot the list between two pages: once more, in one piece.
            Err((Failure::Gone, pages)) if pages > 0 => self.pages(live, None).await,
            listed => listed,
        }
        .map_err(|(failure, _)| failure)
    }

    /// All pages, or why not and how many there were.
    async fn pages(
        &self,
        live: &Live,
        limit: Option<u32>,
    ) -> Result<(String, Vec<(Meta, S::Item)>), (Failure, usize)> {
        let patience = self.server.timing.response;
        let (mut items, mut next) = (Vec::new(), None::<String>);
        let limit = limit.map_or(String::new(), |limit| format!("limit={limit}"));
        for pages in 0..OBJECTS {
            let next_page = next
                .as_deref()
                .map_or(String::new(), |next| format!("&continue={}", escaped(next)));
            let path = format!("{}{limit}{next_page}", self.path);
            let fail = |failure| (failure, pages);
            let response = live
                .get(path.trim_end_matches(['?', '&']), patience)
                .await
                .map_err(fail)?;
            self.server.heard();
            let bytes = read(response, PAGE_BYTES, patience).await.map_err(fail)?;
            let malformed = |what: &str| (Failure::Malformed(what.to_owned()), pages);
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|_| malformed("a list that is not JSON"))?;
            drop(bytes);
            self.server.heard();
            let meta = page.metadata.clone();
            for object in page.into_items() {
                items.push((Meta::of(&object), self.sink.read(object)));
            }
            if items.len() > OBJECTS {
                return Err(malformed("more objects than are read"));
            }
            next = meta.next.filter(|next| !next.is_empty());
            if next.is_none() {
                let version = meta.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or_else(|| malformed("a list without resourceVersion"))?;
                return Ok((version, items));
            }
        }
        Err((Failure::Malformed("a list without end".to_owned()), 0))
    }

    async fn watch(&mut self, live: &Live) -> Result<(), Failure> {
        let timing = &self.server.timing;
        let path = format!(
            "{}watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={}",
            self.path,
            escaped(self.lineage.version().unwrap_or_default()),
            jittered(timing.watch_length).as_secs().max(1),
        );
        let mut body = live.get(&path, timing.response).await?.into_body();
        self.opened = Some(Instant::now());
        self.server.opened(self.resource);
        let mut lines = Lines::new(LINE_BYTES);
        loop {
            let frame = match timeout(timing.watch_idle, body.frame()).await {
                // Nothing, not even a bookmark: perhaps nothing gets through. To watch on from here costs nothing.
                Err(_) | Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(Failure::Unreachable(chain(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let (mut changes, mut events, mut failed) = (Vec::new(), 0, None);
            let cut = lines.push(&data, |line| {
                if failed.is_none() && !line.trim_ascii().is_empty() {
                    failed = said(
                        line,
                        &mut self.lineage,
                        &self.sink,
                        &mut changes,
                        &mut events,
                    )
                    .err();
                }
            });
            let edits = self.sink.take(changes);
            self.server.told(events, edits);
            if let Some(failure) = failed {
                return Err(failure);
            }
            if cut == Err(TooLong) {
                return Err(Failure::Malformed(format!(
                    "a line of more than {LINE_BYTES} bytes"
                )));
            }
        }
    }
}

/// What one line of a watch changes.
fn said<S: Sink>(
    line: &[u8],
    lineage: &mut Lineage,
    sink: &S,
    changes: &mut Vec<Change<S::Item>>,
    events: &mut u64,
) -> Result<(), Failure> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|_| Failure::Malformed("a watch line that is not JSON".to_owned()))?;
    let happened = match line.kind.as_str() {
        "ADDED" | "MODIFIED" => Happened::Stands,
        "DELETED" => Happened::Deleted,
        "BOOKMARK" => {
            lineage.bookmark(&Meta::of(&line.object).version);
            return Ok(());
        }
        "ERROR" => {
            let mut status: Status = serde_json::from_value(line.object).unwrap_or_default();
            status.message = sentence(&status.message);
            return Err(refusal(&status, None));
        }
        // A kind of event that came after us says nothing to us.
        _ => return Ok(()),
    };
    *events += 1;
    let meta = Meta::of(&line.object);
    changes.extend(lineage.event(happened, &meta, || sink.read(line.object)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl Sink for Names {
        type Item = String;
        fn read(&self, object: Value) -> String {
            object["v"].to_string()
        }
        fn take(&mut self, _: Vec<Change<String>>) -> Vec<Edit> {
            Vec::new()
        }
    }

    fn line(lineage: &mut Lineage, text: &str) -> (Result<(), Failure>, Vec<Change<String>>) {
        let mut changes = Vec::new();
        let said = said(text.as_bytes(), lineage, &Names, &mut changes, &mut 0);
        (said, changes)
    }

    #[test]
    fn lines_of_a_watch_become_changes() {
        let mut lineage = Lineage::default();
        lineage.listed::<String>("5".into(), vec![]);
        let added = r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"6"},"v":1}}"#;
        let (said, changes) = line(&mut lineage, added);
        assert_eq!((said, changes.len()), (Ok(()), 1));
        assert_eq!(line(&mut lineage, added).1, []);
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert_eq!(line(&mut lineage, bookmark), (Ok(()), vec![]));
        assert_eq!(lineage.version(), Some("9"));
        let gone = r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#;
        assert_eq!(line(&mut lineage, gone).0, Err(Failure::Gone));
        assert_eq!(
            line(&mut lineage, r#"{"type":"NEW","object":null}"#),
            (Ok(()), vec![])
        );
        assert!(matches!(
            line(&mut lineage, "{").0,
            Err(Failure::Malformed(_))
        ));
        assert!(matches!(
            line(&mut lineage, r#"{"type":"ERROR","object":5}"#).0,
            Err(Failure::Refused { code: 0, .. })
        ));
    }
}
