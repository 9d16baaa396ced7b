//! HTTP answers: whole ones, and those that go on.

use std::{convert::Infallible, io};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Response, body::Frame, header};
use tokio::sync::mpsc;

use super::refusal::Refusal;

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A refusal as its `Status`.
pub(super) fn refuse(refusal: &Refusal) -> Answer {
    let mut answer = json_answer(refusal.code, refusal.status().to_string().into());
    if let Some(seconds) = refusal.retry_after {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

pub(super) fn json_answer(code: u16, body: Bytes) -> Answer {
    plain(code, "application/json", body)
}

pub(super) fn plain(code: u16, content_type: &'static str, body: Bytes) -> Answer {
    let body = Full::new(body)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let answer = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, content_type);
    answer
        .body(body)
        .expect("a status and a fixed header make an answer")
}

pub(super) fn stream_answer(body: mpsc::Receiver<io::Result<Bytes>>) -> Answer {
    let frames = stream::unfold(body, |mut body| async {
        let part = body.recv().await?;
        Some((part.map(Frame::data), body))
    });
    let answer = Response::builder().header(header::CONTENT_TYPE, "application/json");
    answer
        .body(StreamBody::new(frames).boxed_unsync())
        .expect("a fixed header makes an answer")
}
