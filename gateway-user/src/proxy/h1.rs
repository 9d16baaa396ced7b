//! HTTP/1.x on a connection: bodies read and written, whichever side it is.

pub(super) mod sink;
pub(super) mod source;

pub(super) use self::{
    sink::{Coding, Sink},
    source::Source,
};
